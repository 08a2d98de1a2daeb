"""Softmax probabilities of chosen tokens."""

import extensibility
from extensibility import InputTensor, OutputTensor
from max.gpu.host import DeviceContext
from std.math import exp, log

from ..common.views import FloatView, IntView, View
from .thread_block import Reduction, each_thread
from .launch import Kernel, launch


@always_inline
def log_sum_exp[threads: Int](reduction: Reduction[threads], row: FloatView, count: Int) -> Float32:
    """`log(sum(exp(row)))` of the first numbers of a row."""

    def largest_of(thread: Int) {imm} -> Float32:
        var largest = Float32.MIN_FINITE
        for k in range(thread, count, threads):
            largest = max(largest, row[k])
        return largest

    var largest = reduction.maximum(largest_of)

    def sum_of(thread: Int) {imm} -> Float32:
        var total = Float32(0)
        for k in range(thread, count, threads):
            total += exp(row[k] - largest)
        return total

    return largest + log(reduction.sum(sum_of))


@fieldwise_init
struct ProbabilitiesKernel(Kernel):
    """Probabilities of a row's chosen ids; see `Probabilities`."""

    comptime threads = 512
    var logits: FloatView
    var ids: IntView
    var limit: IntView
    var y: FloatView
    var vocabulary: Int
    var count: Int

    @always_inline
    def __call__(self, block: Int):
        var logits = self.logits.slice(block * self.vocabulary, self.vocabulary)
        var ids = self.ids.slice(block * self.count, self.count)
        var y = self.y.slice(block * self.count, self.count)

        def gather(thread: Int) {imm}:
            for i in range(thread, self.count, Self.threads):
                y[i] = logits[Int(ids[i])]

        each_thread[Self.threads](gather)
        var reduction = Reduction[Self.threads]()
        var among = Int(self.limit[0])
        var total = log_sum_exp(reduction, y, self.count) if among == 0 else log_sum_exp(
            reduction, logits, among
        )

        def exponentiate(thread: Int) {imm}:
            for i in range(thread, self.count, Self.threads):
                y[i] = exp(y[i] - total)

        each_thread[Self.threads](exponentiate)


@extensibility.register("whisper.gpu.probabilities")
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
        var kernel = ProbabilitiesKernel(
            View(logits),
            View(ids),
            View(limit),
            View(y),
            logits.dim_size(2),
            ids.dim_size(2),
        )
        launch[target](kernel, logits.dim_size(0) * logits.dim_size(1), ctx)
