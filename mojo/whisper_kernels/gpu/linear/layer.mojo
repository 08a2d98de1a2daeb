"""Linear layers as operations of a graph, and which kernel takes them."""

import extensibility
from extensibility import InputTensor, OutputTensor
from max.gpu.host import DeviceContext
from max.gpu.host.info import is_cpu
from std.math import ceildiv

from ...common.views import View
from ..launch import ALONE, EARLY_READER, launch
from .epilogue import Epilogue
from .few_rows_simt import FewRowsKernel
from .many_rows_mma import ManyRowsKernel
from .many_rows_wgmma import WarpgroupsKernel
from .few_rows_mma import TensorCoresKernel

comptime MANY = 64
"""Rows beyond which it pays to read them and the weights tile by tile."""
comptime GROUPS = 4
"""Of eight rows, that share one reading of the weights where there are more than eight."""
comptime AMPERE = 8
comptime HOPPER = 9
comptime MULTIPROCESSORS = 132
"""Of a Hopper GPU: fewer wide tiles than that leave some idle, so narrow ones are made."""


def linear[
    dtype: DType,
    storage: DType,
    result: DType,
    activate: Bool,
    biased: Bool,
    added: Bool,
    //,
    target: StaticString,
    tensor_cores: Int,
    early: Bool = False,
](
    x: View[dtype],
    weight: View[storage],
    epilogue: Epilogue[storage, result, activate, biased, added],
    depth: Int,
    ctx: DeviceContext,
) raises:
    """The epilogue of `x [rows, depth] weight [columns, depth]^T`.

    The depth is a multiple of `inputs_per_load`. `tensor_cores` is the generation of NVIDIA's that
    are there, `AMPERE` or `HOPPER`, and `dtype` is then a half type; or none, 0. With `early`, the
    kernel for up to eight rows reads weights while the one before it still works.
    """
    var rows = x.count // depth
    var columns = epilogue.columns
    comptime if tensor_cores > 0 and not is_cpu[target]():
        comptime if storage != DType.int8:
            if rows > MANY:
                many_rows[target, tensor_cores](
                    x,
                    rebind[View[dtype]](weight),
                    rebind[Epilogue[dtype, result, activate, biased, added]](epilogue),
                    rows,
                    depth,
                    ctx,
                )
                return
        comptime start = EARLY_READER if early else ALONE
        comptime One = TensorCoresKernel[
            dtype, storage, result, activate, biased, added, start=start
        ]
        comptime Few = TensorCoresKernel[
            dtype, storage, result, activate, biased, added, groups=GROUPS
        ]
        var unused = epilogue.scale
        if rows <= One.rows_per_block:
            launch[target, start=start](
                One(x, unused, unused, unused, weight, epilogue, rows, depth),
                ceildiv(columns, One.columns_per_block),
                ctx,
            )
        else:
            launch[target](
                Few(x, unused, unused, unused, weight, epilogue, rows, depth),
                ceildiv(columns, Few.columns_per_block) * ceildiv(rows, Few.rows_per_block),
                ctx,
            )
    else:
        comptime Few = FewRowsKernel[dtype, storage, result, activate, biased, added]
        launch[target](
            Few(x, weight, epilogue, rows, depth),
            ceildiv(columns, Few.columns_per_block) * ceildiv(rows, Few.rows_per_block),
            ctx,
        )


def many_rows[
    dtype: DType,
    result: DType,
    activate: Bool,
    biased: Bool,
    added: Bool,
    //,
    target: StaticString,
    tensor_cores: Int,
](
    x: View[dtype],
    weight: View[dtype],
    epilogue: Epilogue[dtype, result, activate, biased, added],
    rows: Int,
    depth: Int,
    ctx: DeviceContext,
) raises:
    """`linear` of more than `MANY` rows."""
    var columns = epilogue.columns

    def by_warpgroups[wide: Int]() raises {imm}:
        comptime K = WarpgroupsKernel[dtype, result, activate, biased, added, wide]
        launch[target, shared_bytes=K.shared_bytes, resident=1](
            K(x, weight, epilogue, rows, depth),
            ceildiv(columns, K.wide),
            ctx,
            high=ceildiv(rows, K.high),
        )

    comptime if tensor_cores == HOPPER:
        if columns % 2 == 0:
            if ceildiv(rows, 128) * ceildiv(columns, 256) < MULTIPROCESSORS:
                by_warpgroups[128]()
            else:
                by_warpgroups[256]()
            return
    comptime K = ManyRowsKernel[dtype, result, activate, biased, added]
    launch[target, resident=2](
        K(x, weight, epilogue, rows, depth),
        ceildiv(columns, K.tile),
        ctx,
        high=ceildiv(rows, K.tile),
    )


@extensibility.register("whisper.gpu.linear")
struct Linear:
    """`y = activation(x weight^T + bias)`: x [items, queries, in], weight [out, in], bias [out];
    y [items, queries, out]."""

    @staticmethod
    def execute[
        target: StaticString, dtype: DType, tensor_cores: Int, activate: Bool
    ](
        y: OutputTensor[dtype=dtype, rank=3, ...],
        x: InputTensor[dtype=dtype, rank=3, ...],
        weight: InputTensor[dtype=dtype, rank=2, ...],
        bias: InputTensor[dtype=DType.float32, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        var unused = View(bias)
        var epilogue = Epilogue[dtype, dtype, activate, biased=True, added=False](
            unused, View(bias), unused, View(y), weight.dim_size(0)
        )
        linear[target, tensor_cores](View(x), View(weight), epilogue, x.dim_size(2), ctx)


@extensibility.register("whisper.gpu.linear_added")
struct LinearAdded:
    """`y = x weight^T + bias + residual`, in float32."""

    @staticmethod
    def execute[
        target: StaticString, dtype: DType, tensor_cores: Int, early: Bool
    ](
        y: OutputTensor[dtype=DType.float32, rank=3, ...],
        x: InputTensor[dtype=dtype, rank=3, ...],
        weight: InputTensor[dtype=dtype, rank=2, ...],
        bias: InputTensor[dtype=DType.float32, rank=1, ...],
        residual: InputTensor[dtype=DType.float32, rank=3, ...],
        ctx: DeviceContext,
    ) raises:
        var unused = View(bias)
        var epilogue = Epilogue[dtype, DType.float32, activate=False, biased=True, added=True](
            unused, View(bias), View(residual), View(y), weight.dim_size(0)
        )
        linear[target, tensor_cores, early](View(x), View(weight), epilogue, x.dim_size(2), ctx)


@extensibility.register("whisper.gpu.logits")
struct Logits:
    """Logits: `y = x weight^T`, in float32."""

    @staticmethod
    def execute[
        target: StaticString, dtype: DType, tensor_cores: Int
    ](
        y: OutputTensor[dtype=DType.float32, rank=3, ...],
        x: InputTensor[dtype=dtype, rank=3, ...],
        weight: InputTensor[dtype=dtype, rank=2, ...],
        ctx: DeviceContext,
    ) raises:
        var unused = View(y)
        var epilogue = Epilogue[dtype, DType.float32, activate=False, biased=False, added=False](
            unused, unused, unused, View(y), weight.dim_size(0)
        )
        linear[target, tensor_cores](View(x), View(weight), epilogue, x.dim_size(2), ctx)
