"""The kernels as nodes of a MAX graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from max.dtype import DType
from max.graph import (
    BufferType,
    BufferValue,
    DeviceRef,
    Graph,
    Module,
    TensorType,
    TensorValue,
    ops,
)
from max.graph.dim import DimLike

from ..compile.artifacts import kernels_path

Parameters = Mapping[str, bool | int | float | str | DType]
Values = Mapping[str, TensorValue | BufferValue]
"""Inputs of a kernel by name, in its order."""


def new_graph(name: str, input_types: Sequence[TensorType | BufferType], module: Module) -> Graph:
    """A graph of `module` that can use the kernels; a context manager."""
    return Graph(
        name,
        input_types=list(input_types),
        module=module,
        custom_extensions=[kernels_path()],
    )


class Kernels:
    """Adds kernels to a graph under construction.

    Args:
        device: Where the graph runs.
    """

    def __init__(self, device: DeviceRef) -> None:
        self.device = device

    def add(
        self,
        name: str,
        inputs: Values,
        results: Sequence[TensorType],
        parameters: Parameters | None = None,
    ) -> list[TensorValue]:
        """The kernel ``whisper.<name>``; buffers among the inputs are written in place.

        The inputs' names are for the reader, and for the test that holds them against the kernel's.
        """
        values = list(inputs.values())
        in_place = any(isinstance(value, BufferValue) for value in values)
        call = ops.inplace_custom if in_place else ops.custom
        outputs = call(f"whisper.{name}", self.device, values, list(results), parameters)
        return [output.tensor for output in outputs]

    def floats(self, *shape: DimLike) -> TensorType:
        """A float32 tensor."""
        return TensorType(DType.float32, list(shape), self.device)

    def integers(self, *shape: DimLike) -> TensorType:
        """An int32 tensor."""
        return TensorType(DType.int32, list(shape), self.device)
