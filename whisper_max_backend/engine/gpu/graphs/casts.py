"""Casts the matrices of a file to the type that they are multiplied in."""

from __future__ import annotations

from max.dtype import DType
from max.graph import Module, TensorType

from ...graphs.ops import new_graph
from .layers import Layers

_FLOATS = (DType.float32, DType.float16, DType.bfloat16)
"""What files hold."""


def add_casts(module: Module, layers: Layers) -> None:
    """Adds a graph ``cast_<from>`` of ``[1, rows, columns]`` for every other float type."""
    for source in _FLOATS:
        if source != layers.dtype:
            matrix = TensorType(source, [1, "rows", "columns"], layers.device)
            with new_graph(f"cast_{source.name}", [matrix], module) as graph:
                graph.output(layers.cast(graph.inputs[0].tensor))
