"""Linear layers for few rows over weights of int8, one scale for each output: only the weights
are rounded. What they are multiplied with stays as it is, and sums are float32.

For many rows the weights are widened first, for a product of matrices.
"""

import extensibility
from extensibility import InputTensor, OutputTensor
from max.gpu import block_idx
from max.gpu.host import DeviceContext
from max.gpu.host.info import is_cpu

from ..tensors import Floats, Numbers, floats, numbers
from .linear import linear
from .team import blocks_on_cpu, step

comptime THREADS = 128


@extensibility.register("whisper.device.linear_int8")
struct LinearInt8:
    """`y = activation(scale * (x weight^T) + bias)`: x [items, queries, in], weight [out, in] int8,
    scale and bias [out]; y [items, queries, out]. `in` is a multiple of 16."""

    @staticmethod
    def execute[
        target: StaticString, dtype: DType, tensor_cores: Bool, activate: Bool
    ](
        y: OutputTensor[dtype=dtype, rank=3, ...],
        x: InputTensor[dtype=dtype, rank=3, ...],
        weight: InputTensor[dtype=DType.int8, rank=2, ...],
        scale: InputTensor[dtype=DType.float32, rank=1, ...],
        bias: InputTensor[dtype=DType.float32, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        linear[target, dtype, DType.int8, dtype, tensor_cores, activate=activate](
            numbers(x),
            numbers(weight),
            numbers(scale),
            numbers(bias),
            numbers(bias),
            numbers(y),
            x.dim_size(0) * x.dim_size(1),
            x.dim_size(2),
            weight.dim_size(0),
            ctx,
        )


@extensibility.register("whisper.device.linear_added_int8")
struct LinearAddedInt8:
    """`y = scale * (x weight^T) + bias + residual`, in float32."""

    @staticmethod
    def execute[
        target: StaticString, dtype: DType, tensor_cores: Bool
    ](
        y: OutputTensor[dtype=DType.float32, rank=3, ...],
        x: InputTensor[dtype=dtype, rank=3, ...],
        weight: InputTensor[dtype=DType.int8, rank=2, ...],
        scale: InputTensor[dtype=DType.float32, rank=1, ...],
        bias: InputTensor[dtype=DType.float32, rank=1, ...],
        residual: InputTensor[dtype=DType.float32, rank=3, ...],
        ctx: DeviceContext,
    ) raises:
        linear[target, dtype, DType.int8, DType.float32, tensor_cores, added=True](
            numbers(x),
            numbers(weight),
            numbers(scale),
            numbers(bias),
            numbers(residual),
            numbers(y),
            x.dim_size(0) * x.dim_size(1),
            x.dim_size(2),
            weight.dim_size(0),
            ctx,
        )


@extensibility.register("whisper.device.logits_int8")
struct LogitsInt8:
    """Logits: `y = scale * (x weight^T)`, in float32."""

    @staticmethod
    def execute[
        target: StaticString, dtype: DType, tensor_cores: Bool
    ](
        y: OutputTensor[dtype=DType.float32, rank=3, ...],
        x: InputTensor[dtype=dtype, rank=3, ...],
        weight: InputTensor[dtype=DType.int8, rank=2, ...],
        scale: InputTensor[dtype=DType.float32, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        linear[target, dtype, DType.int8, DType.float32, tensor_cores, biased=False](
            numbers(x),
            numbers(weight),
            numbers(scale),
            numbers(y),
            numbers(y),
            numbers(y),
            x.dim_size(0) * x.dim_size(1),
            x.dim_size(2),
            weight.dim_size(0),
            ctx,
        )


@always_inline
def widen_block[
    dtype: DType
](row: Int, weight: Numbers[DType.int8], scale: Floats, y: Numbers[dtype], depth: Int):
    """A row of `scale * weight`."""
    var own = weight.unsafe_offset(row * depth)
    var wide = y.unsafe_offset(row * depth)

    def multiply(thread: Int) {imm}:
        for k in range(thread, depth, THREADS):
            var value = own[unsafe_offset=k].cast[DType.float32]() * scale[unsafe_offset=row]
            wide[unsafe_offset=k] = value.cast[dtype]()

    step[THREADS](multiply)


def widen_kernel[
    dtype: DType
](weight: Numbers[DType.int8], scale: Floats, y: Numbers[dtype], depth: Int64):
    """One block of the grid."""
    widen_block[dtype](Int(block_idx.x), weight, scale, y, Int(depth))


@extensibility.register("whisper.device.widen_int8")
struct WidenInt8:
    """`y = scale * weight`: weight [out, in] int8, scale [out]; y [out, in]."""

    @staticmethod
    def execute[
        target: StaticString, dtype: DType
    ](
        y: OutputTensor[dtype=dtype, rank=2, ...],
        weight: InputTensor[dtype=DType.int8, rank=2, ...],
        scale: InputTensor[dtype=DType.float32, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        var rows = weight.dim_size(0)
        var depth = weight.dim_size(1)
        if rows == 0:
            return
        comptime if is_cpu[target]():
            var weight_at = numbers(weight)
            var scale_at = floats(scale)
            var y_at = numbers(y)

            def block(row: Int) {imm}:
                widen_block[dtype](row, weight_at, scale_at, y_at, depth)

            blocks_on_cpu(rows, block)
        else:
            ctx.enqueue_function[widen_kernel[dtype]](
                numbers(weight),
                floats(scale),
                numbers(y),
                Int64(depth),
                grid_dim=rows,
                block_dim=THREADS,
            )
