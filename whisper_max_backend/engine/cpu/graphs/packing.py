"""Weights into the layout of the kernels, as MAX graphs: one for each type a file may hold."""

from __future__ import annotations

from max.dtype import DType
from max.graph import DeviceRef, Module

from ...graphs.ops import new_graph
from ...graphs.signature import Input, Signature
from .kernels import CPUKernels
from .signatures import THREADS

# (of the file, of the panels)
CONVERSIONS = (
    (DType.float32, DType.float32),
    (DType.float32, DType.bfloat16),
    (DType.float32, DType.int8),
    (DType.float16, DType.float16),
    (DType.float16, DType.float32),
    (DType.float16, DType.bfloat16),
    (DType.float16, DType.int8),
    (DType.bfloat16, DType.bfloat16),
    (DType.bfloat16, DType.float32),
    (DType.bfloat16, DType.int8),
    (DType.int8, DType.float32),
    (DType.int8, DType.bfloat16),
    (DType.int8, DType.int8),
)


PACK = Signature(
    Input("packed", DType.uint8, ("bytes",), in_place=True),
    # Of each weight [outputs, inputs]: its address, that of its scale [outputs], which multiplies
    # it, that of its columns' factors and centre [2, inputs], for int8 only, the first of its bytes
    # in `packed`, outputs, inputs.
    Input("sources", DType.int64, ("weights", 6)),
    THREADS,
)


def add_packing(module: Module, device: DeviceRef) -> None:
    """Adds a graph ``pack_<from>_<to>`` for each of the `CONVERSIONS`."""
    for dtype, storage in CONVERSIONS:
        parameters = {"storage": storage, "dtype": dtype}
        with new_graph(f"pack_{dtype.name}_{storage.name}", PACK.types(device), module) as graph:
            CPUKernels(graph, device).call("pack_weights", PACK.values(graph), [], parameters)
            graph.output()
