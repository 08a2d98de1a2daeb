"""The inputs of a graph, named once: one table builds the graph and orders its buffers.

A compiled graph is executed with this table, too, so the graph builder is imported only where a
graph is built.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from max.dtype import DType

if TYPE_CHECKING:
    from max.graph import BufferType, BufferValue, DeviceRef, Graph, TensorType, TensorValue

Value = TypeVar("Value")


@dataclass(frozen=True)
class Input:
    """An input of a graph.

    Attributes:
        name: As the kernel calls it.
        dtype: Of its elements.
        shape: Its dimensions, numbers or names.
        in_place: Whether the graph writes to it.
        shape_only: Whether only its dimensions count; no kernel takes it.
        on_host: Whether it is in the host's memory, wherever the graph runs.
    """

    name: str
    dtype: DType
    shape: tuple[int | str, ...]
    in_place: bool = False
    shape_only: bool = False
    on_host: bool = False

    def type(self, device: DeviceRef) -> TensorType | BufferType:
        """As a graph on a device takes it."""
        from max.graph import BufferType, DeviceRef, TensorType

        kind = BufferType if self.in_place else TensorType
        return kind(self.dtype, list(self.shape), DeviceRef.CPU() if self.on_host else device)


def integers(name: str, *shape: int | str) -> Input:
    """An int32 input."""
    return Input(name, DType.int32, shape)


def floats(name: str, *shape: int | str) -> Input:
    """A float32 input."""
    return Input(name, DType.float32, shape)


def packed(name: str) -> Input:
    """Weights as the kernels of a CPU read them, uint8 ``[bytes]``."""
    return Input(name, DType.uint8, (f"{name}_bytes",))


def sizes(*dimensions: str) -> Input:
    """Dimensions of results that no other input has: an empty buffer ``[0, *dimensions]``."""
    return Input("sizes", DType.uint8, (0, *dimensions), shape_only=True)


class Signature:
    """The inputs of a graph, in their order."""

    def __init__(self, *inputs: Input) -> None:
        self.inputs = inputs
        self.names = tuple(one.name for one in inputs)

    def types(self, device: DeviceRef) -> list[TensorType | BufferType]:
        """What a graph on a device is opened with."""
        return [one.type(device) for one in self.inputs]

    def values(self, graph: Graph) -> dict[str, TensorValue | BufferValue]:
        """What the kernels of an opened graph may take, by name."""
        return {
            one.name: value.buffer if one.in_place else value.tensor
            for one, value in zip(self.inputs, graph.inputs, strict=True)
            if not one.shape_only
        }

    def ordered(self, **buffers: Value) -> list[Value]:
        """What the graph is executed with.

        Raises:
            TypeError: A buffer is missing, or the graph has no input of a name.
        """
        if len(buffers) != len(self.names) or not all(name in buffers for name in self.names):
            differing = sorted(set(self.names).symmetric_difference(buffers))
            raise TypeError(f"A graph's inputs are {', '.join(self.names)}; see {differing}")
        return [buffers[name] for name in self.names]
