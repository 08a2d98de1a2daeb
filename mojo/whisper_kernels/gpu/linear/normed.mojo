"""A layer normalisation and the linear layer that follows it, as one kernel for tensor cores."""

import extensibility
from extensibility import InputTensor, OutputTensor
from max.gpu.host import DeviceContext
from std.math import ceildiv

from ...common.views import Floats, Numbers, floats, numbers
from .tensor import COLUMNS, ROWS, THREADS, tensor_kernel


def linear_normed[
    dtype: DType, kept: DType, activate: Bool, width: Int
](
    x: Floats,
    gamma: Floats,
    beta: Floats,
    weight: Numbers[kept],
    scale: Floats,
    bias: Floats,
    y: Numbers[dtype],
    rows: Int,
    columns: Int,
    ctx: DeviceContext,
) raises:
    """`y [rows, columns] = activation(norm(x [rows, width]) weight [columns, width]^T + bias)`.

    The normalised rows are rounded to `dtype`, as where they are kept.
    """
    if rows * columns == 0:
        return
    ctx.enqueue_function[
        tensor_kernel[
            dtype, kept, dtype, activate=activate, biased=True, added=False, normed=width
        ]
    ](
        y,
        x,
        gamma,
        beta,
        weight,
        scale,
        bias,
        bias,
        y,
        Int64(rows),
        Int64(width),
        Int64(columns),
        grid_dim=ceildiv(columns, COLUMNS) * ceildiv(rows, ROWS),
        block_dim=THREADS,
    )


@extensibility.register("whisper.device.linear_normed")
struct LinearNormed:
    """Of x [items, queries, width], gamma and beta [width], weight [out, width], bias [out]:
    y [items, queries, out]."""

    @staticmethod
    def execute[
        target: StaticString, dtype: DType, activate: Bool, width: Int
    ](
        y: OutputTensor[dtype=dtype, rank=3, ...],
        x: InputTensor[dtype=DType.float32, rank=3, ...],
        gamma: InputTensor[dtype=DType.float32, rank=1, ...],
        beta: InputTensor[dtype=DType.float32, rank=1, ...],
        weight: InputTensor[dtype=dtype, rank=2, ...],
        bias: InputTensor[dtype=DType.float32, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        linear_normed[dtype, dtype, activate, width](
            floats(x),
            floats(gamma),
            floats(beta),
            numbers(weight),
            floats(bias),
            floats(bias),
            numbers(y),
            x.dim_size(0) * x.dim_size(1),
            weight.dim_size(0),
            ctx,
        )


@extensibility.register("whisper.device.linear_normed_int8")
struct LinearNormedInt8:
    """As `whisper.device.linear_normed`, of a weight [out, width] int8 with scale [out]."""

    @staticmethod
    def execute[
        target: StaticString, dtype: DType, activate: Bool, width: Int
    ](
        y: OutputTensor[dtype=dtype, rank=3, ...],
        x: InputTensor[dtype=DType.float32, rank=3, ...],
        gamma: InputTensor[dtype=DType.float32, rank=1, ...],
        beta: InputTensor[dtype=DType.float32, rank=1, ...],
        weight: InputTensor[dtype=DType.int8, rank=2, ...],
        scale: InputTensor[dtype=DType.float32, rank=1, ...],
        bias: InputTensor[dtype=DType.float32, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        linear_normed[dtype, DType.int8, activate, width](
            floats(x),
            floats(gamma),
            floats(beta),
            numbers(weight),
            floats(scale),
            floats(bias),
            numbers(y),
            x.dim_size(0) * x.dim_size(1),
            weight.dim_size(0),
            ctx,
        )
