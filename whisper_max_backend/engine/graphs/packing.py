"""Weights into the layout of the kernels, as MAX graphs: one for each type a file may hold."""

from __future__ import annotations

from max.dtype import DType
from max.graph import BufferType, DeviceRef, Module, TensorType, ops

from .layers import PANEL, new_graph

# (of the file, of the panels)
CONVERSIONS = (
    (DType.float32, DType.float32),
    (DType.float16, DType.float16),
    (DType.float16, DType.float32),
    (DType.bfloat16, DType.bfloat16),
    (DType.bfloat16, DType.float32),
    (DType.int8, DType.float32),
)


def add_packing(module: Module, device: DeviceRef) -> None:
    """Adds a graph ``pack_<from>_<to>`` for each of the `CONVERSIONS`.

    Inputs: ``packed [panels, inputs, PANEL]``, written in place; ``weight [outputs, inputs]``;
    ``scale [outputs]``, which multiplies it; ``threads [1]``.
    """
    for dtype, storage in CONVERSIONS:
        inputs = [
            BufferType(storage, ["panels", "inputs", PANEL], device),
            TensorType(dtype, ["outputs", "inputs"], device),
            TensorType(DType.float32, ["outputs"], device),
            TensorType(DType.int32, [1], device),
        ]
        with new_graph(f"pack_{dtype.name}_{storage.name}", inputs, module) as graph:
            packed, weight, scale, threads = graph.inputs
            ops.inplace_custom(
                "whisper.pack",
                device,
                [packed.buffer, weight.tensor, scale.tensor, threads.tensor],
            )
            graph.output()
