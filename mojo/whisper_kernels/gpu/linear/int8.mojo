"""Linear layers over weights of int8, one scale for each output: only the weights
are rounded. What they are multiplied with stays as it is, and sums are float32."""

import extensibility
from extensibility import InputTensor, OutputTensor
from max.gpu.host import DeviceContext

from ...common.views import numbers
from .few import linear


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
