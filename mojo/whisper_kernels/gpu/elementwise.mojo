"""Copies: in another type, to windows of cross-attention keys and values, with positions added.

Why these are not MAX's is told in `norm.mojo`.
"""

import extensibility
from extensibility import (
    InputTensor,
    OutputTensor,
    _MutableInputTensor as MutableInputTensor,
)
from max.gpu.host import DeviceContext
from std.math import ceildiv

from ..common.views import FloatView, IntView, View
from .thread_block import each_thread
from .launch import Kernel, launch


@fieldwise_init
struct CopyKernel[source: DType, result: DType](Kernel):
    """Some numbers of `y = x`."""

    comptime threads = 128
    comptime numbers_per_block = 8 * Self.threads
    var x: View[Self.source]
    var y: View[Self.result]

    @always_inline
    def __call__(self, block: Int):
        var begin = block * Self.numbers_per_block
        var end = min(self.x.count, begin + Self.numbers_per_block)

        def copy(thread: Int) {imm}:
            for k in range(begin + thread, end, Self.threads):
                self.y[k] = self.x[k].cast[Self.result]()

        each_thread[Self.threads](copy)


@fieldwise_init
struct StoreWindowKernel[dtype: DType](Kernel):
    """Some numbers of an item of x, to the window of the same layer that is the item's."""

    comptime threads = 128
    comptime numbers_per_block = 8 * Self.threads
    var x: View[Self.dtype]
    var windows: IntView
    var layer: View[Self.dtype]
    var size: Int
    """Numbers of an item."""

    @always_inline
    def blocks_each(self) -> Int:
        """Blocks of an item."""
        return ceildiv(self.size, Self.numbers_per_block)

    @always_inline
    def __call__(self, block: Int):
        var item = block // self.blocks_each()
        var begin = block % self.blocks_each() * Self.numbers_per_block
        var end = min(self.size, begin + Self.numbers_per_block)
        var source = self.x.slice(item * self.size, self.size)
        var window = self.layer.slice(Int(self.windows[item]) * self.size, self.size)

        def copy(thread: Int) {imm}:
            for k in range(begin + thread, end, Self.threads):
                window[k] = source[k]

        each_thread[Self.threads](copy)


@fieldwise_init
struct AddPositionsKernel[dtype: DType](Kernel):
    """A row of `y = x + encodings`."""

    comptime threads = 128
    var x: View[Self.dtype]
    var encodings: FloatView
    var y: FloatView
    var states: Int
    var width: Int

    @always_inline
    def __call__(self, block: Int):
        var x = self.x.slice(block * self.width, self.width)
        var encoding = self.encodings.slice(block % self.states * self.width, self.width)
        var y = self.y.slice(block * self.width, self.width)

        def add(thread: Int) {imm}:
            for k in range(thread, self.width, Self.threads):
                y[k] = x[k].cast[DType.float32]() + encoding[k]

        each_thread[Self.threads](add)


def copy[
    source: DType, result: DType, //, target: StaticString
](x: View[source], y: View[result], ctx: DeviceContext) raises:
    """`y = x`."""
    comptime K = CopyKernel[source, result]
    launch[target](K(x, y), ceildiv(x.count, K.numbers_per_block), ctx)


@extensibility.register("whisper.gpu.cast")
struct Cast:
    """Copies x [items, positions, width] in another type."""

    @staticmethod
    def execute[
        target: StaticString, source: DType, dtype: DType
    ](
        y: OutputTensor[dtype=dtype, rank=3, ...],
        x: InputTensor[dtype=source, rank=3, ...],
        ctx: DeviceContext,
    ) raises:
        copy[target](View(x), View(y), ctx)


@extensibility.register("whisper.gpu.store_cross_kv")
struct StoreCrossKV:
    """Writes x [items, frames, 2 * width] into its layer and windows [items] of
    cross_kv [layers, windows, frames, 2 * width].

    count [1] takes nothing: an operation has a result.
    """

    @staticmethod
    def execute[
        target: StaticString, dtype: DType
    ](
        count: OutputTensor[dtype=DType.int32, rank=1, ...],
        cross_kv: MutableInputTensor[dtype=dtype, rank=4, ...],
        x: InputTensor[dtype=dtype, rank=3, ...],
        windows: InputTensor[dtype=DType.int32, rank=1, ...],
        layer: Int32,
        ctx: DeviceContext,
    ) raises:
        var size = x.dim_size(1) * x.dim_size(2)
        var whole = cross_kv.dim_size(1) * size
        var own_layer = View(cross_kv).slice(Int(layer) * whole, whole)
        var kernel = StoreWindowKernel(View(x), View(windows), own_layer, size)
        launch[target](kernel, x.dim_size(0) * kernel.blocks_each(), ctx)


@extensibility.register("whisper.gpu.add_positions")
struct AddPositions:
    """Adds encodings [states, width] to each item of x [items, states, width], in float32."""

    @staticmethod
    def execute[
        target: StaticString, dtype: DType
    ](
        y: OutputTensor[dtype=DType.float32, rank=3, ...],
        x: InputTensor[dtype=dtype, rank=3, ...],
        encodings: InputTensor[dtype=DType.float32, rank=2, ...],
        ctx: DeviceContext,
    ) raises:
        var states = x.dim_size(1)
        var kernel = AddPositionsKernel(View(x), View(encodings), View(y), states, x.dim_size(2))
        launch[target](kernel, x.dim_size(0) * states, ctx)
