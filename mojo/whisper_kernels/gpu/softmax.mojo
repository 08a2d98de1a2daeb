"""Sums of exponentials over a row of logits, and probabilities of chosen tokens."""

import extensibility
from extensibility import InputTensor, OutputTensor
from max.gpu import block_idx
from max.gpu.host import DeviceContext
from max.gpu.host.info import is_cpu
from std.math import exp, log

from ..common.views import Floats, Ints, floats, ints
from .block import Reduction, blocks_on_cpu, step

comptime THREADS = 512


@always_inline
def log_sum[threads: Int](reduction: Reduction[threads], row: Floats, count: Int) -> Float32:
    """`log(sum(exp(row)))`."""

    def top_of(thread: Int) {imm} -> Float32:
        var top = Float32.MIN_FINITE
        for k in range(thread, count, threads):
            top = max(top, row[unsafe_offset=k])
        return top

    var top = reduction.maximum(top_of)

    def sum_of(thread: Int) {imm} -> Float32:
        var total = Float32(0)
        for k in range(thread, count, threads):
            total += exp(row[unsafe_offset=k] - top)
        return total

    return top + log(reduction.sum(sum_of))


@always_inline
def probability_block(
    row: Int,
    logits: Floats,
    ids: Ints,
    limit: Ints,
    y: Floats,
    vocabulary: Int,
    count: Int,
):
    """Probabilities of a row's chosen ids; see `Probabilities`."""
    var line = logits.unsafe_offset(row * vocabulary)
    var own = ids.unsafe_offset(row * count)
    var values = y.unsafe_offset(row * count)

    def gather(thread: Int) {imm}:
        for i in range(thread, count, THREADS):
            values[unsafe_offset=i] = line[unsafe_offset=Int(own[unsafe_offset=i])]

    step[THREADS](gather)
    var reduction = Reduction[THREADS]()
    var among = Int(limit[unsafe_offset=0])
    var total = log_sum(reduction, values, count) if among == 0 else log_sum(
        reduction, line, among
    )

    def raise_all(thread: Int) {imm}:
        for i in range(thread, count, THREADS):
            values[unsafe_offset=i] = exp(values[unsafe_offset=i] - total)

    step[THREADS](raise_all)


def probability_kernel(
    logits: Floats, ids: Ints, limit: Ints, y: Floats, vocabulary: Int64, count: Int64
):
    """One block of the grid."""
    probability_block(
        Int(block_idx.x), logits, ids, limit, y, Int(vocabulary), Int(count)
    )


@extensibility.register("whisper.device.probabilities")
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
        ctx: DeviceContext,
    ) raises:
        var rows = logits.dim_size(0) * logits.dim_size(1)
        var vocabulary = logits.dim_size(2)
        var count = ids.dim_size(2)
        if rows == 0:
            return
        comptime if is_cpu[target]():
            var logits_at = floats(logits)
            var ids_at = ints(ids)
            var limit_at = ints(limit)
            var y_at = floats(y)

            def block(row: Int) {imm}:
                probability_block(row, logits_at, ids_at, limit_at, y_at, vocabulary, count)

            blocks_on_cpu(rows, block)
        else:
            ctx.enqueue_function[probability_kernel](
                floats(logits),
                ints(ids),
                ints(limit),
                floats(y),
                Int64(vocabulary),
                Int64(count),
                grid_dim=rows,
                block_dim=THREADS,
            )
