"""Linear layers over weights of int8, one scale for each output: only the weights
are rounded. What they are multiplied with stays as it is, and sums are float32."""

import extensibility
from extensibility import InputTensor, OutputTensor
from max.gpu.host import DeviceContext

from ...common.views import View
from .epilogue import Epilogue
from .layer import linear

comptime INT8 = DType.int8


@extensibility.register("whisper.gpu.linear_int8")
struct LinearInt8:
    """`y = activation(scale * (x weight^T) + bias)`: x [items, queries, in], weight [out, in] int8,
    scale and bias [out]; y [items, queries, out]. `in` is a multiple of 16."""

    @staticmethod
    def execute[
        target: StaticString, dtype: DType, tensor_cores: Int, activate: Bool
    ](
        y: OutputTensor[dtype=dtype, rank=3, ...],
        x: InputTensor[dtype=dtype, rank=3, ...],
        weight: InputTensor[dtype=INT8, rank=2, ...],
        scale: InputTensor[dtype=DType.float32, rank=1, ...],
        bias: InputTensor[dtype=DType.float32, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        var unused = View(bias)
        var epilogue = Epilogue[INT8, dtype, activate, biased=True, added=False](
            View(scale), View(bias), unused, View(y), weight.dim_size(0)
        )
        linear[target, tensor_cores](View(x), View(weight), epilogue, x.dim_size(2), ctx)


@extensibility.register("whisper.gpu.linear_added_int8")
struct LinearAddedInt8:
    """`y = scale * (x weight^T) + bias + residual`, in float32."""

    @staticmethod
    def execute[
        target: StaticString, dtype: DType, tensor_cores: Int, early: Bool
    ](
        y: OutputTensor[dtype=DType.float32, rank=3, ...],
        x: InputTensor[dtype=dtype, rank=3, ...],
        weight: InputTensor[dtype=INT8, rank=2, ...],
        scale: InputTensor[dtype=DType.float32, rank=1, ...],
        bias: InputTensor[dtype=DType.float32, rank=1, ...],
        residual: InputTensor[dtype=DType.float32, rank=3, ...],
        ctx: DeviceContext,
    ) raises:
        var epilogue = Epilogue[INT8, DType.float32, activate=False, biased=True, added=True](
            View(scale), View(bias), View(residual), View(y), weight.dim_size(0)
        )
        linear[target, tensor_cores, early](View(x), View(weight), epilogue, x.dim_size(2), ctx)


@extensibility.register("whisper.gpu.logits_int8")
struct LogitsInt8:
    """Logits: `y = scale * (x weight^T)`, in float32."""

    @staticmethod
    def execute[
        target: StaticString, dtype: DType, tensor_cores: Int
    ](
        y: OutputTensor[dtype=DType.float32, rank=3, ...],
        x: InputTensor[dtype=dtype, rank=3, ...],
        weight: InputTensor[dtype=INT8, rank=2, ...],
        scale: InputTensor[dtype=DType.float32, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        var unused = View(scale)
        var epilogue = Epilogue[INT8, DType.float32, activate=False, biased=False, added=False](
            View(scale), unused, unused, View(y), weight.dim_size(0)
        )
        linear[target, tensor_cores](View(x), View(weight), epilogue, x.dim_size(2), ctx)
