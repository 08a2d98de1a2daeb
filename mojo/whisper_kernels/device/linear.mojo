"""Linear layers for few rows: the time is that of reading the weights once.

A warp's worth of threads makes a few columns for up to ROWS rows; each thread takes every 32nd
piece of the depth, and the pieces are added in shared memory. Weights of int8 are widened in
registers, and each column's sum is multiplied by its scale.
"""

from std.math import ceildiv, fma

import extensibility
from extensibility import InputTensor, OutputTensor
from max.gpu import block_idx
from max.gpu.host import DeviceContext
from max.gpu.host.info import is_cpu

from ..gelu import gelu
from ..tensors import Floats, Numbers, numbers
from .team import blocks_on_cpu, load, shared, step

comptime LANES = 32
comptime WARPS = 4
comptime THREADS = LANES * WARPS
comptime COLUMNS = 4
"""Columns of a warp."""
comptime ROWS = 8
"""Rows that share one reading of the weights."""
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
        for k in range(lane * PIECE, depth, LANES * PIECE):
            var weights = Array[SIMD[DType.float32, PIECE], COLUMNS](fill=0)
            comptime for c in range(COLUMNS):
                # Columns beyond the last repeat it; they are not written.
                var place = min(column + c, columns - 1) * depth + k
                weights[c] = load[PIECE](weight.unsafe_offset(place))
            comptime for r in range(ROWS):
                if first_row + r < rows:
                    var values = load[PIECE](x.unsafe_offset((first_row + r) * depth + k))
                    comptime for c in range(COLUMNS):
                        # One instruction for each product; there are SUMS chains of them.
                        comptime for i in range(PIECE):
                            totals[r * COLUMNS + c] = fma(
                                values[i], weights[c][i], totals[r * COLUMNS + c]
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
                comptime if kept == DType.int8:
                    total *= scale[unsafe_offset=column]
                comptime if biased:
                    total += bias[unsafe_offset=column]
                comptime if activate:
                    total = gelu[1](total)
                comptime if added:
                    total += residual[unsafe_offset=row * columns + column]
                y[unsafe_offset=row * columns + column] = total.cast[result]()

    step[THREADS](add)


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

    The depth is a multiple of `piece`. Weights of int8 are multiplied by `scale [columns]`, which
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
        target: StaticString, dtype: DType, activate: Bool
    ](
        y: OutputTensor[dtype=dtype, rank=3, ...],
        x: InputTensor[dtype=dtype, rank=3, ...],
        weight: InputTensor[dtype=dtype, rank=2, ...],
        bias: InputTensor[dtype=DType.float32, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        linear[target, dtype, dtype, dtype, activate=activate](
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
        target: StaticString, dtype: DType
    ](
        y: OutputTensor[dtype=DType.float32, rank=3, ...],
        x: InputTensor[dtype=dtype, rank=3, ...],
        weight: InputTensor[dtype=dtype, rank=2, ...],
        bias: InputTensor[dtype=DType.float32, rank=1, ...],
        residual: InputTensor[dtype=DType.float32, rank=3, ...],
        ctx: DeviceContext,
    ) raises:
        linear[target, dtype, dtype, DType.float32, added=True](
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
        target: StaticString, dtype: DType
    ](
        y: OutputTensor[dtype=DType.float32, rank=3, ...],
        x: InputTensor[dtype=dtype, rank=3, ...],
        weight: InputTensor[dtype=dtype, rank=2, ...],
        ctx: DeviceContext,
    ) raises:
        linear[target, dtype, dtype, DType.float32, biased=False](
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
