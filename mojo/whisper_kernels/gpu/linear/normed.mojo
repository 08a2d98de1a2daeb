"""A layer normalisation and the linear layer that follows it, as one kernel for tensor cores."""

import extensibility
from extensibility import InputTensor, OutputTensor
from max.gpu.host import DeviceContext
from std.math import ceildiv

from ...common.views import FloatView, View
from ..launch import ALONE, EARLY_READER, launch
from .epilogue import Epilogue
from .few_rows_mma import TensorCoresKernel
from .layer import MULTIPROCESSORS


def linear_normed[
    dtype: DType, storage: DType, activate: Bool, //, target: StaticString, width: Int, early: Bool
](
    x: FloatView,
    gamma: FloatView,
    beta: FloatView,
    weight: View[storage],
    epilogue: Epilogue[storage, dtype, activate, True, False],
    ctx: DeviceContext,
) raises:
    """The epilogue of `norm(x [rows, width]) weight [columns, width]^T`.

    The normalised rows are rounded to `dtype`, as where they are kept.
    """
    comptime start = EARLY_READER if early else ALONE
    var rows = x.count // width
    var unused = epilogue.y

    def by[resident: Int]() raises {imm}:
        comptime K = TensorCoresKernel[
            dtype, storage, dtype, activate, True, False, width, start=start, resident=resident
        ]
        launch[target, resident=resident, start=start](
            K(unused, x, gamma, beta, weight, epilogue, rows, width),
            ceildiv(epilogue.columns, K.columns_per_block) * ceildiv(rows, K.rows_per_block),
            ctx,
        )

    # Blocks that come later would have to wait for their weights, and normalise the rows again.
    comptime One = TensorCoresKernel[dtype, storage, dtype, activate, True, False, width]
    if ceildiv(epilogue.columns, One.columns_per_block) > 2 * MULTIPROCESSORS:
        by[3]()
    else:
        by[2]()


@extensibility.register("whisper.gpu.linear_normed")
struct LinearNormed:
    """Of x [items, queries, width], gamma and beta [width], weight [out, width], bias [out]:
    y [items, queries, out]."""

    @staticmethod
    def execute[
        target: StaticString, dtype: DType, activate: Bool, width: Int, early: Bool
    ](
        y: OutputTensor[dtype=dtype, rank=3, ...],
        x: InputTensor[dtype=DType.float32, rank=3, ...],
        gamma: InputTensor[dtype=DType.float32, rank=1, ...],
        beta: InputTensor[dtype=DType.float32, rank=1, ...],
        weight: InputTensor[dtype=dtype, rank=2, ...],
        bias: InputTensor[dtype=DType.float32, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        var unused = View(bias)
        var epilogue = Epilogue[dtype, dtype, activate, True, False](
            unused, View(bias), unused, View(y), weight.dim_size(0)
        )
        linear_normed[target, width, early](
            View(x), View(gamma), View(beta), View(weight), epilogue, ctx
        )


@extensibility.register("whisper.gpu.linear_normed_int8")
struct LinearNormedInt8:
    """As `whisper.gpu.linear_normed`, of a weight [out, width] int8 with scale [out]."""

    @staticmethod
    def execute[
        target: StaticString, dtype: DType, activate: Bool, width: Int, early: Bool
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
        var unused = View(bias)
        var epilogue = Epilogue[DType.int8, dtype, activate, True, False](
            View(scale), View(bias), unused, View(y), weight.dim_size(0)
        )
        linear_normed[target, width, early](
            View(x), View(gamma), View(beta), View(weight), epilogue, ctx
        )
