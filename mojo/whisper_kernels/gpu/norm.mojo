"""Layer normalisation.

MAX (26.7) has a kernel for it, and for the copies of `elementwise.mojo`. On Hopper these let the next
kernel begin before they have ended; on an H200 what was beside them in a graph had old memory in
its first rows: cross-attention keys and values that MAX copied were 15 % off. Ours let nothing
begin early.
"""

import extensibility
from extensibility import InputTensor, OutputTensor
from max.gpu.host import DeviceContext
from std.math import sqrt
from std.sys import size_of

from ..common.views import FloatView, View
from .thread_block import Reduction, each_thread, load
from .launch import Kernel, launch

comptime EPSILON = 1e-5


@fieldwise_init
struct NormKernel[dtype: DType](Kernel):
    """A row of `y = (x - mean) / sqrt(variance + EPSILON) * gamma + beta`.

    The width is a multiple of `vector`.
    """

    comptime threads = 128
    comptime vector = 4
    """Neighbours that a thread takes at once."""
    var x: FloatView
    var gamma: FloatView
    var beta: FloatView
    var y: View[Self.dtype]
    var width: Int

    @always_inline
    def __call__(self, block: Int):
        comptime WIDE = Self.vector
        comptime STEP = Self.threads * WIDE
        comptime ALIGNMENT = WIDE * size_of[Scalar[Self.dtype]]()
        var x = self.x.slice(block * self.width, self.width)
        var y = self.y.slice(block * self.width, self.width)
        var reduction = Reduction[Self.threads]()

        def sum_of(thread: Int) {imm} -> Float32:
            var total = Float32(0)
            for k in range(thread * WIDE, self.width, STEP):
                total += load[WIDE](x, k).reduce_add()
            return total

        var mean = reduction.sum(sum_of) / Float32(self.width)

        def squares_of(thread: Int) {imm} -> Float32:
            var total = Float32(0)
            for k in range(thread * WIDE, self.width, STEP):
                var difference = load[WIDE](x, k) - mean
                total += (difference * difference).reduce_add()
            return total

        var factor = 1 / sqrt(reduction.sum(squares_of) / Float32(self.width) + EPSILON)

        def scale(thread: Int) {imm}:
            for k in range(thread * WIDE, self.width, STEP):
                var value = (load[WIDE](x, k) - mean) * factor
                value = value * load[WIDE](self.gamma, k) + load[WIDE](self.beta, k)
                y.store[alignment=ALIGNMENT](k, value.cast[Self.dtype]())

        each_thread[Self.threads](scale)


@extensibility.register("whisper.gpu.norm")
struct Norm:
    """Of x [items, positions, width] with gamma and beta [width]; y is like x."""

    @staticmethod
    def execute[
        target: StaticString, dtype: DType
    ](
        y: OutputTensor[dtype=dtype, rank=3, ...],
        x: InputTensor[dtype=DType.float32, rank=3, ...],
        gamma: InputTensor[dtype=DType.float32, rank=1, ...],
        beta: InputTensor[dtype=DType.float32, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        var kernel = NormKernel(View(x), View(gamma), View(beta), View(y), x.dim_size(2))
        launch[target](kernel, x.dim_size(0) * x.dim_size(1), ctx)
