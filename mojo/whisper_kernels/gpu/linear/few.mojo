"""Linear layers for few rows: the time is that of reading the weights once.

A warp's worth of threads makes a few columns for up to ROWS rows; each thread takes every 32nd
piece of the depth, and the pieces are added in shared memory. Weights of int8 are widened in
registers, and each column's sum is multiplied by its scale. NVIDIA's GPUs multiply the half types
with their tensor cores instead (`tensor.mojo`, and `many.mojo` for many rows).
"""

from std.math import ceildiv, fma

import extensibility
from extensibility import InputTensor, OutputTensor
from max.gpu import block_idx
from max.gpu.host import DeviceContext
from max.gpu.host.info import is_cpu

from ...common.gelu import gelu
from ...common.views import Floats, Numbers, numbers
from . import many, tensor
from ..block import blocks_on_cpu, fetch, load, shared, step

comptime LANES = 32
comptime WARPS = 4
comptime THREADS = LANES * WARPS
comptime COLUMNS = 2
"""Columns of a warp."""
comptime AHEAD = 5
"""Pieces of a column that a thread asks for before it uses the first: memory is far away, and so
many are all of a column of 1280."""
comptime ROWS = 8
"""Rows that share one reading of the weights."""
comptime MANY = 64
"""Rows beyond which it pays to read them and the weights tile by tile (`many.mojo`)."""
comptime SUMS = ROWS * COLUMNS
comptime STRIDE = LANES + 1
"""Distance of the sums of a warp's threads, so that they lie in different banks."""


@always_inline
def piece[kept: DType]() -> Int:
    """Neighbouring inputs that a thread takes at once: 16 bytes of int8 or of a half type."""
    return 16 if kept == DType.int8 else 8


@always_inline
def linear_block[
    dtype: DType, kept: DType, result: DType, activate: Bool, biased: Bool, added: Bool
](
    block: Int,
    x: Numbers[dtype],
    weight: Numbers[kept],
    scale: Floats,
    bias: Floats,
    residual: Floats,
    y: Numbers[result],
    rows: Int,
    depth: Int,
    columns: Int,
):
    """WARPS * COLUMNS columns of `y = x weight^T` for up to ROWS rows."""
    var parts = ceildiv(columns, WARPS * COLUMNS)
    var first_column = block % parts * WARPS * COLUMNS
    var first_row = block // parts * ROWS
    var sums = shared[WARPS * SUMS * STRIDE]()
    comptime PIECE = piece[kept]()

    def multiply(thread: Int) {imm}:
        var lane = thread % LANES
        var column = first_column + thread // LANES * COLUMNS
        var totals = Array[Float32, SUMS](fill=0)
        for first in range(lane * PIECE, depth, LANES * PIECE * AHEAD):
            var weights = Array[SIMD[kept, PIECE], AHEAD * COLUMNS](fill=0)
            comptime for a in range(AHEAD):
                var k = first + a * LANES * PIECE
                if k < depth:
                    comptime for c in range(COLUMNS):
                        # Columns beyond the last repeat it; they are not written.
                        var place = min(column + c, columns - 1) * depth + k
                        weights[a * COLUMNS + c] = fetch[PIECE](weight.unsafe_offset(place))
            comptime for a in range(AHEAD):
                var k = first + a * LANES * PIECE
                if k < depth:
                    comptime for r in range(ROWS):
                        # Rows beyond the last repeat it, too: a branch would make each wait.
                        var row = min(first_row + r, rows - 1)
                        var values = load[PIECE](x.unsafe_offset(row * depth + k))
                        # One instruction for each product; there are SUMS chains of them.
                        comptime for c in range(COLUMNS):
                            var own = weights[a * COLUMNS + c].cast[DType.float32]()
                            comptime for i in range(PIECE):
                                totals[r * COLUMNS + c] = fma(
                                    values[i], own[i], totals[r * COLUMNS + c]
                                )
        comptime for i in range(SUMS):
            sums[unsafe_offset=(thread // LANES * SUMS + i) * STRIDE + lane] = totals[i]

    step[THREADS](multiply)

    def add(thread: Int) {imm}:
        var lane = thread % LANES
        for i in range(lane, SUMS, LANES):
            var row = first_row + i // COLUMNS
            var column = first_column + thread // LANES * COLUMNS + i % COLUMNS
            if row < rows and column < columns:
                var own = sums.unsafe_offset((thread // LANES * SUMS + i) * STRIDE)
                var total = Float32(0)
                for k in range(LANES):
                    total += own[unsafe_offset=k]
                y[unsafe_offset=row * columns + column] = finished[
                    kept, activate, biased, added
                ](total, scale, bias, residual, row * columns + column, column).cast[result]()

    step[THREADS](add)


@always_inline
def finished[
    kept: DType, activate: Bool, biased: Bool, added: Bool
](
    total: Float32, scale: Floats, bias: Floats, residual: Floats, place: Int, column: Int
) -> Float32:
    """What a sum of products becomes at a place of `y`."""
    var value = total
    comptime if kept == DType.int8:
        value *= scale[unsafe_offset=column]
    comptime if biased:
        value += bias[unsafe_offset=column]
    comptime if activate:
        value = gelu[1](value)
    comptime if added:
        value += residual[unsafe_offset=place]
    return value


def linear_kernel[
    dtype: DType, kept: DType, result: DType, activate: Bool, biased: Bool, added: Bool
](
    x: Numbers[dtype],
    weight: Numbers[kept],
    scale: Floats,
    bias: Floats,
    residual: Floats,
    y: Numbers[result],
    rows: Int64,
    depth: Int64,
    columns: Int64,
):
    """One block of the grid."""
    linear_block[dtype, kept, result, activate, biased, added](
        Int(block_idx.x), x, weight, scale, bias, residual, y, Int(rows), Int(depth), Int(columns)
    )


def linear[
    target: StaticString,
    dtype: DType,
    kept: DType,
    result: DType,
    tensor_cores: Bool,
    activate: Bool = False,
    biased: Bool = True,
    added: Bool = False,
](
    x: Numbers[dtype],
    weight: Numbers[kept],
    scale: Floats,
    bias: Floats,
    residual: Floats,
    y: Numbers[result],
    rows: Int,
    depth: Int,
    columns: Int,
    ctx: DeviceContext,
) raises:
    """`y [rows, columns] = activation(x [rows, depth] weight [columns, depth]^T + bias) + residual`.

    The depth is a multiple of `piece`. `tensor_cores` are NVIDIA's, and `dtype` is then a half type. Weights of int8 are multiplied by `scale [columns]`, which
    is not read for other types; nor are `bias` and `residual` that the parameters rule out.
    """
    var blocks = ceildiv(columns, WARPS * COLUMNS) * ceildiv(rows, ROWS)
    if blocks == 0:
        return
    comptime if is_cpu[target]():

        def block(index: Int) {imm}:
            linear_block[dtype, kept, result, activate, biased, added](
                index, x, weight, scale, bias, residual, y, rows, depth, columns
            )

        blocks_on_cpu(blocks, block)
    elif tensor_cores:
        comptime if kept != DType.int8:
            if rows > MANY:
                ctx.enqueue_function[
                    many.many_kernel[dtype, result, activate, biased, added]
                ](
                    x,
                    rebind[Numbers[dtype]](weight),
                    bias,
                    residual,
                    y,
                    Int64(rows),
                    Int64(depth),
                    Int64(columns),
                    grid_dim=(ceildiv(columns, many.TILE), ceildiv(rows, many.TILE)),
                    block_dim=many.THREADS,
                )
                return
        ctx.enqueue_function[
            tensor.tensor_kernel[dtype, kept, result, activate, biased, added]
        ](
            x,
            bias,
            bias,
            bias,
            weight,
            scale,
            bias,
            residual,
            y,
            Int64(rows),
            Int64(depth),
            Int64(columns),
            grid_dim=ceildiv(columns, tensor.COLUMNS) * ceildiv(rows, tensor.ROWS),
            block_dim=tensor.THREADS,
        )
    else:
        ctx.enqueue_function[linear_kernel[dtype, kept, result, activate, biased, added]](
            x,
            weight,
            scale,
            bias,
            residual,
            y,
            Int64(rows),
            Int64(depth),
            Int64(columns),
            grid_dim=blocks,
            block_dim=THREADS,
        )


@extensibility.register("whisper.device.linear")
struct Linear:
    """`y = activation(x weight^T + bias)`: x [items, queries, in], weight [out, in], bias [out];
    y [items, queries, out]."""

    @staticmethod
    def execute[
        target: StaticString, dtype: DType, tensor_cores: Bool, activate: Bool
    ](
        y: OutputTensor[dtype=dtype, rank=3, ...],
        x: InputTensor[dtype=dtype, rank=3, ...],
        weight: InputTensor[dtype=dtype, rank=2, ...],
        bias: InputTensor[dtype=DType.float32, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        linear[target, dtype, dtype, dtype, tensor_cores, activate=activate](
            numbers(x),
            numbers(weight),
            numbers(bias),
            numbers(bias),
            numbers(bias),
            numbers(y),
            x.dim_size(0) * x.dim_size(1),
            x.dim_size(2),
            weight.dim_size(0),
            ctx,
        )


@extensibility.register("whisper.device.linear_added")
struct LinearAdded:
    """`y = x weight^T + bias + residual`, in float32."""

    @staticmethod
    def execute[
        target: StaticString, dtype: DType, tensor_cores: Bool
    ](
        y: OutputTensor[dtype=DType.float32, rank=3, ...],
        x: InputTensor[dtype=dtype, rank=3, ...],
        weight: InputTensor[dtype=dtype, rank=2, ...],
        bias: InputTensor[dtype=DType.float32, rank=1, ...],
        residual: InputTensor[dtype=DType.float32, rank=3, ...],
        ctx: DeviceContext,
    ) raises:
        linear[target, dtype, dtype, DType.float32, tensor_cores, added=True](
            numbers(x),
            numbers(weight),
            numbers(bias),
            numbers(bias),
            numbers(residual),
            numbers(y),
            x.dim_size(0) * x.dim_size(1),
            x.dim_size(2),
            weight.dim_size(0),
            ctx,
        )


@extensibility.register("whisper.device.logits")
struct Logits:
    """Logits: `y = x weight^T`, in float32."""

    @staticmethod
    def execute[
        target: StaticString, dtype: DType, tensor_cores: Bool
    ](
        y: OutputTensor[dtype=DType.float32, rank=3, ...],
        x: InputTensor[dtype=dtype, rank=3, ...],
        weight: InputTensor[dtype=dtype, rank=2, ...],
        ctx: DeviceContext,
    ) raises:
        linear[target, dtype, dtype, DType.float32, tensor_cores, biased=False](
            numbers(x),
            numbers(weight),
            numbers(y),
            numbers(y),
            numbers(y),
            numbers(y),
            x.dim_size(0) * x.dim_size(1),
            x.dim_size(2),
            weight.dim_size(0),
            ctx,
        )
