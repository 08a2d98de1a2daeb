"""The audio encoder, and the memory that the decoder keeps of a window."""

from __future__ import annotations

from max.dtype import DType
from max.graph import BufferType, DeviceRef, Module, TensorType

from ...graphs.ops import Kernels, new_graph


def add_encoder(module: Module, device: DeviceRef, storage: DType) -> None:
    """Adds the graph ``encode``.

    ``features [batch, mels, frames]``, ``encodings [states, width]`` (position embeddings of
    ``states == (frames + 1) // 2``), ``parameters [bytes]`` with matrices of the type `storage`,
    ``sizes [heads, layers]``, ``threads [1]`` give ``states [batch, states, width]``.
    """
    inputs = [
        TensorType(DType.float32, ["batch", "mels", "frames"], device),
        TensorType(DType.float32, ["states", "width"], device),
        TensorType(DType.uint8, ["bytes"], device),
        TensorType(DType.int32, [2], device),
        TensorType(DType.int32, [1], device),
    ]
    with new_graph("encode", inputs, module) as graph:
        kernels = Kernels(graph, device)
        values = [value.tensor for value in graph.inputs[:-1]]
        states = kernels.floats("batch", "states", "width")
        graph.output(*kernels.call("encoder", values, [states], {"storage": storage}))


def add_memory(module: Module, device: DeviceRef, storage: DType, memory_type: DType) -> None:
    """Adds the graph ``remember``: the cross-attention keys and values of a window, once.

    ``memory [layers, items, heads, bytes]``, written in place with values of `memory_type`;
    ``states [items, frames, width]``, ``parameters [bytes]``, the decoder's width ``[1]``,
    ``threads [1]``.
    """
    inputs = [
        BufferType(DType.uint8, ["layers", "items", "heads", "head_bytes"], device),
        TensorType(DType.float32, ["items", "frames", "width"], device),
        TensorType(DType.uint8, ["bytes"], device),
        TensorType(DType.int32, [1], device),
        TensorType(DType.int32, [1], device),
    ]
    with new_graph("remember", inputs, module) as graph:
        memory, *values = graph.inputs[:-1]
        Kernels(graph, device).call(
            "remember",
            [memory.buffer, *(value.tensor for value in values)],
            [],
            {"storage": storage, "memory_type": memory_type},
        )
        graph.output()
