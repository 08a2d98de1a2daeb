"""Weights into the layout of the kernels, as MAX graphs: one for each type a file may hold."""

from __future__ import annotations

from max.dtype import DType
from max.graph import BufferType, DeviceRef, Module, TensorType

from ...graphs.ops import Kernels, new_graph

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


def add_packing(module: Module, device: DeviceRef) -> None:
    """Adds a graph ``pack_<from>_<to>`` for each of the `CONVERSIONS`.

    Inputs: ``packed [bytes]``, written in place; ``sources [weights, 5]`` int64, for each weight
    ``[outputs, inputs]`` its address, that of its scale ``[outputs]``, which multiplies it, the
    first of its bytes in ``packed``, outputs, inputs; ``threads [1]``.
    """
    inputs = [
        BufferType(DType.uint8, ["bytes"], device),
        TensorType(DType.int64, ["weights", 5], device),
        TensorType(DType.int32, [1], device),
    ]
    for dtype, storage in CONVERSIONS:
        with new_graph(f"pack_{dtype.name}_{storage.name}", inputs, module) as graph:
            packed, sources, _ = graph.inputs
            values = [packed.buffer, sources.tensor]
            Kernels(graph, device).call("pack", values, [], {"storage": storage, "dtype": dtype})
            graph.output()
