"""Dynamic time warping as a CPU graph, for models on a GPU too."""

from __future__ import annotations

from max.graph import DeviceRef, Dim, Module

from ...graphs.ops import new_graph
from .kernels import CPUKernels
from .signatures import DTW


def add_dtw(module: Module, device: DeviceRef) -> None:
    """Adds the graph ``dtw``.

    Gives paths ``[items, tokens + frames, 2]`` and their lengths ``[items]``.
    """
    with new_graph("dtw", DTW.types(device), module) as graph:
        kernels = CPUKernels(graph, device)
        path = ("items", Dim("tokens") + Dim("frames"), 2)
        results = [kernels.integers(*path), kernels.integers("items")]
        graph.output(*kernels.call("dtw", DTW.values(graph), results))
