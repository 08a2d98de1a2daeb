"""Every kernel as a graph of its own, all in one module: the tests of kernels compile once."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from max.driver import CPU, Buffer
from max.dtype import DType
from max.graph import BufferType, DeviceRef, Module, TensorType, ops
from max.graph.dim import DimLike

from compat_tests.support.randomness import rng
from whisper_max_backend.engine.compile.artifacts import compiled
from whisper_max_backend.engine.compile.cpu_target import has_bfloat16
from whisper_max_backend.engine.compile.session import LoadedGraph, Session
from whisper_max_backend.engine.cpu.graphs.signatures import CHOICE
from whisper_max_backend.engine.cpu.weights import PANEL, TILE_BYTES
from whisper_max_backend.engine.graphs.ops import new_graph

STORAGES = (DType.float32, DType.float16, DType.bfloat16, DType.int8)
"""What matrices may be kept in."""

HALVES = TILE_BYTES // 2
"""Numbers of bfloat16 that the depth of a panel is a multiple of."""

_CPU = DeviceRef.CPU()


def floats(*shape: DimLike) -> TensorType:
    """A float32 input or output."""
    return TensorType(DType.float32, list(shape), _CPU)


def integers(*shape: DimLike) -> TensorType:
    """An int32 input or output."""
    return TensorType(DType.int32, list(shape), _CPU)


def panels(size: DimLike = "bytes") -> TensorType:
    """A matrix in panels."""
    return TensorType(DType.uint8, [size], _CPU)


def written(*shape: DimLike) -> BufferType:
    """Bytes that the kernel writes to."""
    return BufferType(DType.uint8, list(shape), _CPU)


class KernelModule:
    """Collects graphs of one kernel each.

    Dimensions of results that no input has come from further inputs, there for their shapes alone.
    """

    def __init__(self) -> None:
        self.module = Module()

    def add(
        self,
        name: str,
        inputs: list[TensorType | BufferType],
        outputs: list[TensorType],
        *,
        shapes: list[TensorType] | None = None,
        graph: str | None = None,
        parameters: dict[str, Any] | None = None,
    ) -> None:
        """The kernel ``whisper.<name>``, as a graph called `graph` or like the kernel."""
        kinds = [*inputs, integers(1)]  # the last one: how many threads
        with new_graph(graph or name, [*kinds, *(shapes or [])], self.module) as opened:
            values = [
                value.buffer if isinstance(kind, BufferType) else value.tensor
                for value, kind in zip(opened.inputs, kinds, strict=False)
            ]
            in_place = any(isinstance(kind, BufferType) for kind in inputs)
            call: Callable[..., Any] = ops.inplace_custom if in_place else ops.custom
            opened.output(*call(f"whisper.{name}", _CPU, values, outputs, parameters))


def build() -> Module:
    """All kernels but those of `shared_models`, and those of whole networks."""
    kernels = KernelModule()
    _add_products(kernels)
    _add_tokens(kernels)
    _add_alignment(kernels)
    return kernels.module


def _add_products(kernels: KernelModule) -> None:
    x, y = floats("batch", "rows", "in"), floats("batch", "rows", "out")
    for storage in STORAGES:
        kernels.add(
            "logits",
            [x, panels()],
            [y],
            shapes=[floats("out")],
            graph=f"logits_{storage.name}",
            parameters={"storage": storage},
        )


def _add_tokens(kernels: KernelModule) -> None:
    states = floats("items", "queries", "state")
    kernels.add("take_token", [states, integers(1)], [floats("items", 1, "state")])
    logits = floats("items", "queries", "vocabulary")
    ids = integers("items", "queries", "count")
    kernels.add("probabilities", [logits, ids, integers(1)], [floats("items", "queries", "count")])
    chosen = ("items", "candidates")
    kernels.add(
        "choose",
        [
            states,
            panels(),
            *(one.type(_CPU) for one in CHOICE),
        ],
        [
            integers(*chosen),
            integers(*chosen),
            floats(*chosen),
            floats("rows"),
            floats("items", "queries", "vocabulary"),
        ],
        shapes=[floats("candidates"), floats("vocabulary")],
        parameters={"storage": DType.float32},
    )


def _add_alignment(kernels: KernelModule) -> None:
    sums = floats("items", "tokens", "frames")
    memory = ("layers", "items", "heads", "head_bytes")
    kernels.add(
        "cross_kv",
        [
            written("layers", "windows", "heads", "head_bytes"),
            integers("items"),
            floats("items", "frames", "width"),
            panels(),
            integers(1),
        ],
        [],
        parameters={"storage": DType.float32, "kv_type": DType.float32},
    )
    kernels.add(
        "alignment_weights",
        [
            floats("layers", "items", "tokens", "state"),
            TensorType(DType.uint8, list(memory), _CPU),
            integers("chosen", 2),
            integers("items", 3),
            integers(1),
            integers(1),
        ],
        [sums],
        shapes=[floats("frames")],
        parameters={"kv_type": DType.float32},
    )
    kernels.add(
        "dtw",
        [sums, integers("items", 3), floats(1)],
        [integers("items", "longest", 2), integers("items")],
        shapes=[floats("longest")],
    )


class Kernels:
    """The compiled kernels, called by name with arrays.

    Integers become int32, float64 becomes float32, and other types stay. An array that
    a kernel writes to is written in place.

    Args:
        threads: How many threads a kernel may use.
    """

    def __init__(self, threads: int) -> None:
        self._threads = np.array([threads], np.int32)
        self._models = _compiled_models()

    def __call__(self, graph: str, *inputs: Any, shapes: Sequence[Any] = ()) -> list[np.ndarray]:
        """The results of a graph of `build`; `shapes` are the inputs that are only shapes."""
        values = [_array(value) for value in inputs]
        like = [np.empty(shape, np.float32) for shape in shapes]
        outputs = self._models[graph].execute(*values, self._threads, *like)
        return [output.to_numpy() for output in outputs]


@functools.cache
def _compiled_models() -> Mapping[str, LoadedGraph]:
    """All graphs, compiled once for all test files."""
    session = Session([CPU()])
    source = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    artifact = compiled("test_kernels", build, key={"source": source}, session=session)
    return session.init_all(artifact)


def _array(value: Any) -> Any:
    if isinstance(value, Buffer):
        return value
    array = np.asarray(value)
    kinds = {np.dtype(np.int64): np.int32, np.dtype(np.float64): np.float32}
    return np.ascontiguousarray(array, dtype=kinds.get(array.dtype, array.dtype))


def normal(*shape: int, scale: float = 1, mean: float = 0) -> np.ndarray:
    """Normal numbers, new in every run: float64, and exact in float32."""
    numbers = rng().normal(mean, scale, shape)
    return numbers.astype(np.float32).astype(np.float64)


def packed(weight: np.ndarray) -> np.ndarray:
    """A dense weight [outputs, inputs] of floats as the bytes of its panels (cpu/panels.mojo)."""
    return _panels(weight, weight.shape[1], 1)


def packed_bfloat16(weight: np.ndarray) -> np.ndarray:
    """The same of the bits of bfloat16 (uint16), whose depth is padded; in pairs where the
    processor multiplies those."""
    depth = -(-weight.shape[1] // HALVES) * HALVES
    return _panels(weight, depth, 2 if has_bfloat16() else 1)


def _panels(weight: np.ndarray, depth: int, group: int) -> np.ndarray:
    outputs, inputs = weight.shape
    count = -(-outputs // PANEL)
    padded = np.pad(weight, ((0, count * PANEL - outputs), (0, depth - inputs)))
    grouped = padded.reshape(count, PANEL, depth // group, group)
    return np.ascontiguousarray(grouped.swapaxes(1, 2)).reshape(-1).view(np.uint8)
