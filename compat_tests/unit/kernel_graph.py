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
from max.engine import InferenceSession, Model
from max.graph import BufferType, DeviceRef, Module, TensorType, ops
from max.graph.dim import DimLike

from whisper_max_backend.engine.artifacts import compiled
from whisper_max_backend.engine.graphs.layers import PANEL, new_graph
from whisper_max_backend.engine.graphs.packing import CONVERSIONS

HEADS = 3
"""Heads of the self-attention, whose kernel is compiled for their number."""

_CPU = DeviceRef.CPU()


def floats(*shape: DimLike) -> TensorType:
    """A float32 input or output."""
    return TensorType(DType.float32, list(shape), _CPU)


def integers(*shape: DimLike) -> TensorType:
    """An int32 input or output."""
    return TensorType(DType.int32, list(shape), _CPU)


def written(*shape: DimLike) -> BufferType:
    """A float32 input that the kernel writes to."""
    return BufferType(DType.float32, list(shape), _CPU)


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
    """All kernels but log_mel, which has a graph of its own."""
    kernels = KernelModule()
    _add_dense(kernels)
    _add_attention(kernels)
    _add_tokens(kernels)
    _add_alignment(kernels)
    return kernels.module


def _add_dense(kernels: KernelModule) -> None:
    x, y = floats("batch", "rows", "in"), floats("batch", "rows", "out")
    weight, bias = floats("panels", "in", PANEL), floats("out")
    for activate in (False, True):
        kernels.add(
            "linear",
            [x, weight, bias],
            [y],
            graph="linear_gelu" if activate else "linear",
            parameters={"activate": activate},
        )
    kernels.add("linear_residual", [x, weight, bias, y], [y])
    kernels.add("project", [x, weight], [y], shapes=[bias])
    times, filters = floats("batch", "time", "in"), floats("panels", "taps", PANEL)
    frames, convolved = floats("frames", "out"), floats("batch", "frames", "out")
    for stride in (1, 2):
        parameters = {"stride": stride}
        kernels.add(
            "conv",
            [times, filters, bias],
            [convolved],
            shapes=[floats("frames")],
            graph=f"conv_{stride}",
            parameters=parameters,
        )
        kernels.add(
            "conv_residual",
            [times, filters, bias, frames],
            [convolved],
            graph=f"conv_residual_{stride}",
            parameters=parameters,
        )
    kernels.add("time_major", [floats("batch", "in", "time")], [times])
    kernels.add("layer_norm", [x, floats("in"), floats("in")], [x])
    for dtype, storage in CONVERSIONS:
        dense = TensorType(dtype, ["out", "in"], _CPU)
        panels = BufferType(storage, ["panels", "in", PANEL], _CPU)
        graph = f"pack_{dtype.name}_{storage.name}"
        kernels.add("pack", [panels, dense, bias], [], graph=graph)
    for storage in (DType.float16, DType.bfloat16):
        half = TensorType(storage, ["panels", "in", PANEL], _CPU)
        kernels.add("project", [x, half], [y], shapes=[bias], graph=f"project_{storage.name}")


def _add_attention(kernels: KernelModule) -> None:
    fused, one, row = floats("batch", "frames", "fused"), integers(1), integers("rows")
    packed = floats("batch", "heads", "size")
    kernels.add("pack_attention", [fused], [packed], shapes=[floats("heads", "size")])
    attended = floats("batch", "frames", "state")
    kernels.add("attention", [fused, packed], [attended], shapes=[floats("state")])
    kernels.add("pack_memory", [written("layers", "batch", "heads", "size"), fused, one], [])
    queries = floats("items", "queries", "state")
    memory = floats("layers", "windows", "heads", "size")
    kernels.add("cross_attention", [queries, memory, integers("items"), one, one], [queries])
    kernels.add(
        "self_attention",
        [
            floats("items", "queries", "fused"),
            written("layers", 2, "slots", "context", "state"),
            integers("rows", "context"),
            row,
            one,
        ],
        [queries],
        parameters={"heads": HEADS},
    )


def _add_tokens(kernels: KernelModule) -> None:
    states = floats("items", "queries", "state")
    for storage in (DType.float32, DType.float16):
        panels = TensorType(storage, ["panels", "state", PANEL], _CPU)
        positions = floats("context", "state")
        kernels.add(
            "embed",
            [integers("items", "queries"), integers("rows"), panels, positions],
            [states],
            graph=f"embed_{storage.name}",
        )
    kernels.add("take_token", [states, integers(1)], [floats("items", 1, "state")])
    logits = floats("items", "queries", "vocabulary")
    ids = integers("items", "queries", "count")
    kernels.add("probabilities", [logits, ids, integers(1)], [floats("items", "queries", "count")])
    kernels.add(
        "apply_rules",
        [
            logits,
            integers("suppressed"),
            integers("rows", 4),
            integers("rows", "banned"),
            integers("rows", "penalized"),
            integers("rows"),
            integers(2),
            floats(1),
        ],
        [logits, floats("rows")],
    )
    chosen = ("items", "candidates")
    kernels.add(
        "candidates",
        [logits, floats("rows"), integers(2), floats(1), integers("candidates")],
        [integers(*chosen), integers(*chosen), floats(*chosen)],
    )


def _add_alignment(kernels: KernelModule) -> None:
    sums = floats("items", "tokens", "frames")
    kernels.add(
        "alignment_weights",
        [
            sums,
            floats("items", "tokens", "state"),
            floats("layers", "items", "heads", "size"),
            integers("layers", "chosen"),
            integers("items", 3),
            integers(2),
            integers(1),
        ],
        [sums],
    )
    kernels.add(
        "time_warping",
        [sums, integers("items", 3), floats(1)],
        [integers("items", "longest", 2), integers("items")],
        shapes=[floats("longest")],
    )


class Kernels:
    """The compiled kernels, called by name with arrays.

    Integers become int32, float64 becomes float32, and other types stay. An array of float32 that
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
def _compiled_models() -> Mapping[str, Model]:
    """All graphs, compiled once for all test files."""
    session = InferenceSession(devices=[CPU()])
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
    numbers = np.random.default_rng().normal(mean, scale, shape)
    return numbers.astype(np.float32).astype(np.float64)


def packed(weight: np.ndarray) -> np.ndarray:
    """A dense weight [outputs, inputs] in column panels (gemm.mojo)."""
    outputs, inputs = weight.shape
    panels = -(-outputs // PANEL)
    padded = np.pad(weight, ((0, panels * PANEL - outputs), (0, 0)))
    return padded.reshape(panels, PANEL, inputs).swapaxes(1, 2)
