"""Layer normalisation, sums with position embeddings, and copies in another type.

MAX (26.7) has kernels for all. On Hopper they let the next kernel begin before they have ended; on
an H200 what was beside them in a graph had old memory in its first rows: cross-attention keys and
values that MAX copied were 15 % off. These let nothing begin early.
"""

import extensibility
from extensibility import (
    InputTensor,
    OutputTensor,
    _MutableInputTensor as MutableInputTensor,
)
from max.gpu import block_idx
from max.gpu.host import DeviceContext
from max.gpu.host.info import is_cpu
from std.math import ceildiv, sqrt

from ..common.views import Floats, Numbers, floats, numbers
from .block import Reduction, blocks_on_cpu, step

comptime THREADS = 128
comptime EPSILON = 1e-5
comptime COPIED = 8 * THREADS
"""Numbers that a block copies."""


@always_inline
def norm_block[
    dtype: DType
](row: Int, x: Floats, gamma: Floats, beta: Floats, y: Numbers[dtype], width: Int):
    """A row of `y = (x - mean) / sqrt(variance + EPSILON) * gamma + beta`."""
    var own = x.unsafe_offset(row * width)
    var result = y.unsafe_offset(row * width)
    var reduction = Reduction[THREADS]()

    def sum_of(thread: Int) {imm} -> Float32:
        var total = Float32(0)
        for k in range(thread, width, THREADS):
            total += own[unsafe_offset=k]
        return total

    var mean = reduction.sum(sum_of) / Float32(width)

    def squares_of(thread: Int) {imm} -> Float32:
        var total = Float32(0)
        for k in range(thread, width, THREADS):
            var difference = own[unsafe_offset=k] - mean
            total += difference * difference
        return total

    var factor = 1 / sqrt(reduction.sum(squares_of) / Float32(width) + EPSILON)

    def scale(thread: Int) {imm}:
        for k in range(thread, width, THREADS):
            var value = (own[unsafe_offset=k] - mean) * factor
            result[unsafe_offset=k] = (
                value * gamma[unsafe_offset=k] + beta[unsafe_offset=k]
            ).cast[dtype]()

    step[THREADS](scale)


def norm_kernel[
    dtype: DType
](x: Floats, gamma: Floats, beta: Floats, y: Numbers[dtype], width: Int64):
    """One block of the grid."""
    norm_block[dtype](Int(block_idx.x), x, gamma, beta, y, Int(width))


@extensibility.register("whisper.device.norm")
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
        var rows = x.dim_size(0) * x.dim_size(1)
        var width = x.dim_size(2)
        if rows == 0:
            return
        comptime if is_cpu[target]():
            var x_at = floats(x)
            var gamma_at = floats(gamma)
            var beta_at = floats(beta)
            var y_at = numbers(y)

            def block(row: Int) {imm}:
                norm_block[dtype](row, x_at, gamma_at, beta_at, y_at, width)

            blocks_on_cpu(rows, block)
        else:
            ctx.enqueue_function[norm_kernel[dtype]](
                floats(x),
                floats(gamma),
                floats(beta),
                numbers(y),
                Int64(width),
                grid_dim=rows,
                block_dim=THREADS,
            )


@always_inline
def place_block[
    dtype: DType
](row: Int, x: Numbers[dtype], encodings: Floats, y: Floats, states: Int, width: Int):
    """A row of `y = x + encodings`."""
    var own = x.unsafe_offset(row * width)
    var encoding = encodings.unsafe_offset(row % states * width)
    var result = y.unsafe_offset(row * width)

    def add(thread: Int) {imm}:
        for k in range(thread, width, THREADS):
            result[unsafe_offset=k] = (
                own[unsafe_offset=k].cast[DType.float32]() + encoding[unsafe_offset=k]
            )

    step[THREADS](add)


def place_kernel[
    dtype: DType
](x: Numbers[dtype], encodings: Floats, y: Floats, states: Int64, width: Int64):
    """One block of the grid."""
    place_block[dtype](Int(block_idx.x), x, encodings, y, Int(states), Int(width))


@extensibility.register("whisper.device.place")
struct Place:
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
        var rows = x.dim_size(0) * states
        var width = x.dim_size(2)
        if rows == 0:
            return
        comptime if is_cpu[target]():
            var x_at = numbers(x)
            var encodings_at = floats(encodings)
            var y_at = floats(y)

            def block(row: Int) {imm}:
                place_block[dtype](row, x_at, encodings_at, y_at, states, width)

            blocks_on_cpu(rows, block)
        else:
            ctx.enqueue_function[place_kernel[dtype]](
                numbers(x),
                floats(encodings),
                floats(y),
                Int64(states),
                Int64(width),
                grid_dim=rows,
                block_dim=THREADS,
            )


@always_inline
def copy_block[
    source: DType, result: DType
](block: Int, x: Numbers[source], y: Numbers[result], size: Int):
    """Some numbers of `y = x`."""

    def copy(thread: Int) {imm}:
        for k in range(block * COPIED + thread, min(size, (block + 1) * COPIED), THREADS):
            y[unsafe_offset=k] = x[unsafe_offset=k].cast[result]()

    step[THREADS](copy)


def copy_kernel[
    source: DType, result: DType
](x: Numbers[source], y: Numbers[result], size: Int64):
    """One block of the grid."""
    copy_block[source, result](Int(block_idx.x), x, y, Int(size))


def copied[
    target: StaticString, source: DType, result: DType
](x: Numbers[source], y: Numbers[result], size: Int, ctx: DeviceContext) raises:
    """`y = x`, of `size` numbers."""
    if size == 0:
        return
    comptime if is_cpu[target]():

        def block(index: Int) {imm}:
            copy_block[source, result](index, x, y, size)

        blocks_on_cpu(ceildiv(size, COPIED), block)
    else:
        ctx.enqueue_function[copy_kernel[source, result]](
            x, y, Int64(size), grid_dim=ceildiv(size, COPIED), block_dim=THREADS
        )


@extensibility.register("whisper.device.cast")
struct Cast:
    """Copies x [items, positions, width], float32, in another type."""

    @staticmethod
    def execute[
        target: StaticString, dtype: DType
    ](
        y: OutputTensor[dtype=dtype, rank=3, ...],
        x: InputTensor[dtype=DType.float32, rank=3, ...],
        ctx: DeviceContext,
    ) raises:
        var size = x.dim_size(0) * x.dim_size(1) * x.dim_size(2)
        copied[target, DType.float32, dtype](floats(x), numbers(y), size, ctx)


@extensibility.register("whisper.device.keep")
struct Keep:
    """Writes x [items, frames, width] into its layer of memory [layers, items, frames, width].

    count [1] takes nothing: an operation has a result.
    """

    @staticmethod
    def execute[
        target: StaticString, dtype: DType
    ](
        count: OutputTensor[dtype=DType.int32, rank=1, ...],
        memory: MutableInputTensor[dtype=dtype, rank=4, ...],
        x: InputTensor[dtype=dtype, rank=3, ...],
        layer: Int32,
        ctx: DeviceContext,
    ) raises:
        var size = x.dim_size(0) * x.dim_size(1) * x.dim_size(2)
        var own = numbers(memory).unsafe_offset(Int(layer) * size)
        copied[target, dtype, dtype](numbers(x), own, size, ctx)
