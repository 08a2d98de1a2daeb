"""Probabilities of chosen tokens, and the sums of exponentials that they take."""

from std.math import exp, log

import extensibility
from extensibility import InputTensor, OutputTensor
from max.gpu.host import DeviceContext

from ..common.exp import exp_below
from ..common.min_max import largest
from ..common.simd import F32, LANES
from ..common.views import FloatView, View, first
from .threads import parallel

comptime SUM_BLOCK = 1024
"""Terms that are summed by themselves: beside 1, thousands of small ones would be rounded away."""


def log_sum_exp(row: FloatView, count: Int) -> Float32:
    """`log(sum(exp(row)))`, shifted by the maximum so that nothing overflows."""
    var top = largest(row, count)
    return top + log(sum_of_exponentials(row, count, top))


def sum_of_exponentials(
    row: FloatView, count: Int, top: Float32, weights: Optional[FloatView] = None
) -> Float32:
    """`sum(exp(row - top))`, each term times its weight if there are weights."""
    var whole = count // LANES * LANES
    var total = Float32(0)
    for start in range(0, whole, SUM_BLOCK):
        var sums = SIMD[F32, LANES](0)
        for k in range(start, min(start + SUM_BLOCK, whole), LANES):
            var e = exp_below(row.load[LANES](k) - top)
            if weights:
                e *= weights.value().load[LANES](k)
            sums += e
        total += sums.reduce_add()
    for k in range(whole, count):
        var e = exp_below[1](row[k] - top)
        total += e * weights.value()[k] if weights else e
    return total


@extensibility.register("whisper.probabilities")
struct Probabilities:
    """Softmax probabilities of chosen tokens.

    logits [items, rows, vocabulary]; ids [items, rows, count] int32; limit [1] int32: the
    softmax runs over the first `limit` tokens, or, where it is 0, over the chosen ids alone;
    y [items, rows, count].
    """

    @staticmethod
    def execute[
        target: StaticString
    ](
        y: OutputTensor[dtype=DType.float32, rank=3, ...],
        logits: InputTensor[dtype=DType.float32, rank=3, ...],
        ids: InputTensor[dtype=DType.int32, rank=3, ...],
        limit: InputTensor[dtype=DType.int32, rank=1, ...],
        threads: InputTensor[dtype=DType.int32, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        var vocabulary = logits.dim_size(2)
        var count = ids.dim_size(2)
        var among = first(limit)
        var source = View(logits)
        var chosen_ids = View(ids)
        var output = View(y)

        def task(row: Int) {imm}:
            var line = source.slice(row * vocabulary, vocabulary)
            var chosen = chosen_ids.slice(row * count, count)
            var values = output.slice(row * count, count)
            for i in range(count):
                values[i] = line[Int(chosen[i])]
            var total = log_sum_exp(line, among) if among > 0 else log_sum_exp(values, count)
            for i in range(count):
                values[i] = exp(values[i] - total)

        parallel(first(threads), ids.dim_size(0) * ids.dim_size(1), task)
