"""Notes which kernels the graphs of a module call, and with what."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

from max.graph import BufferValue, Graph, Module, ops

Shape = tuple[str, ...]
"""Dimensions: numbers, names, or sums of both."""


@dataclass(frozen=True)
class Tensor:
    """An argument of a kernel: its type, its rank and what the kernel does with it."""

    dtype: str
    rank: int
    role: str


@dataclass(frozen=True)
class Kernel:
    """A kernel with its parameters; results come before inputs, as in its `execute`."""

    name: str
    arguments: tuple[Tensor, ...]
    parameters: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Call:
    """A kernel in a graph, the values that it takes, and those that it makes with their shapes."""

    kernel: Kernel
    inputs: tuple[Hashable, ...]
    results: tuple[Hashable, ...]
    shapes: tuple[Shape, ...]


@dataclass
class TracedGraph:
    """A graph: its inputs and their shapes, its calls in order, and its results."""

    inputs: list[tuple[Hashable, Shape]] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    results: list[Hashable] = field(default_factory=list)


def trace(build: Callable[[], Module]) -> dict[str, TracedGraph]:
    """The graphs that `build` makes, by name."""
    graphs: dict[str, TracedGraph] = {}
    calls: list[Call] = []
    finish = Graph.output

    def output(graph: Graph, *results: Any) -> None:
        finish(graph, *results)
        inputs = [(_identity(value), _shape(value.type)) for value in graph.inputs]
        graphs[graph.name] = TracedGraph(inputs, list(calls), [_identity(one) for one in results])
        calls.clear()

    with mock.patch.object(Graph, "output", output), _noted(calls):
        build()
    return graphs


@contextmanager
def _noted(calls: list[Call]) -> Iterator[None]:
    """Custom operations are added to `calls`."""

    def noting(operation: Callable[..., Any]) -> Callable[..., Any]:
        def add(*given: Any, **named: Any) -> Any:
            results = operation(*given, **named)
            arguments = inspect.signature(operation).bind(*given, **named).arguments
            calls.append(_call(arguments, results))
            return results

        return add

    with (
        mock.patch.object(ops, "custom", noting(ops.custom)),
        mock.patch.object(ops, "inplace_custom", noting(ops.inplace_custom)),
    ):
        yield


def _call(arguments: Mapping[str, Any], results: Sequence[Any]) -> Call:
    values, kinds = arguments["values"], arguments.get("out_types") or []
    tensors = [Tensor(kind.dtype.name, kind.rank, "Output") for kind in kinds]
    for value in values:
        role = "Mutable" if isinstance(value, BufferValue) else "Input"
        tensors.append(Tensor(value.type.dtype.name, value.type.rank, role))
    parameters = sorted((arguments.get("parameters") or {}).items())
    return Call(
        Kernel(
            arguments["name"],
            tuple(tensors),
            tuple((name, value.name) for name, value in parameters),
        ),
        tuple(map(_identity, values)),
        tuple(map(_identity, results)),
        tuple(map(_shape, kinds)),
    )


def _identity(value: Any) -> Hashable:
    """The same for all objects that stand for one value of a graph."""
    key: Hashable = value._mlir_value
    return key


def _shape(kind: Any) -> Shape:
    return tuple(map(str, kind.shape))
