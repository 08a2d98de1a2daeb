"""The path through attention weights, on the CPU: for models whose other graphs are on a GPU."""

from __future__ import annotations

from max.dtype import DType
from max.graph import DeviceRef, Dim, Module, TensorType

from ...graphs.ops import Kernels, new_graph


def add_time_warping(module: Module, device: DeviceRef) -> None:
    """Adds the graph ``time_warping``.

    ``sums [items, tokens, frames]``, ``sizes [items, 3]`` (first token, tokens and frames of the
    item), ``heads [1]`` (by how many the sums are divided) and ``threads [1]`` give paths
    ``[items, tokens + frames, 2]`` and their lengths ``[items]``.
    """
    inputs = [
        TensorType(DType.float32, ["items", "tokens", "frames"], device),
        TensorType(DType.int32, ["items", 3], device),
        TensorType(DType.float32, [1], device),
        TensorType(DType.int32, [1], device),
    ]
    with new_graph("time_warping", inputs, module) as graph:
        kernels = Kernels(graph, device)
        path = ("items", Dim("tokens") + Dim("frames"), 2)
        values = [value.tensor for value in graph.inputs[:-1]]
        results = [kernels.integers(*path), kernels.integers("items")]
        graph.output(*kernels.call("time_warping", values, results))
