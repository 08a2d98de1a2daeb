"""Every kernel of the GPU's graphs alone, against float64 NumPy on random inputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from max.driver import Buffer, Device
from max.dtype import DType
from max.graph import BufferType, DeviceRef, Module, TensorType, ops

from compat_tests.support.randomness import rng
from whisper_max_backend.engine.compile.artifacts import ArtifactSpec, compiled
from whisper_max_backend.engine.compile.session import Session
from whisper_max_backend.engine.gpu.graphs.layers import Layers
from whisper_max_backend.engine.gpu.graphs.weight_specs import Weight
from whisper_max_backend.engine.gpu.proofs import newest
from whisper_max_backend.engine.gpu.weights import on_device
from whisper_max_backend.engine.graphs.ops import new_graph

ITEMS = 3
HEADS, HEAD = 2, 64
WIDTH = HEADS * HEAD
HIDDEN = 320
VOCABULARY = 1003
DEEP, ODD = 1296, 77
"""A depth that a warp goes through in rounds of which the last is not whole, and columns."""
CONTEXT = 96
SPLITS = 3

TOLERANCES = {"float32": 1e-3, "float16": 4e-3, "bfloat16": 2e-2}
"""Largest relative error, by type; matrix units make float32 products in tf32."""

_erf = np.vectorize(math.erf, otypes=[np.float64])


@dataclass(frozen=True)
class Check:
    """A kernel's relative error, in the norm of the whole output."""

    name: str
    error: float


def build(device: DeviceRef, api: str, dtype: DType, generation: int) -> Module:
    """A graph for each kernel, and for the products and the attention that are MAX's."""
    module = Module()
    many, few = (Layers(device, api, dtype, which, generation) for which in (False, True))
    states = few.tensor("items", "queries", WIDTH)

    def add(
        name: str,
        inputs: Mapping[str, TensorType | BufferType],
        results: Sequence[TensorType],
        **parameters: bool | int | DType,
    ) -> None:
        with new_graph(name, [*inputs.values(), *results], module) as graph:
            values = {
                word: value.buffer if isinstance(kind, BufferType) else value.tensor
                for (word, kind), value in zip(inputs.items(), graph.inputs, strict=False)
            }
            if name.endswith("_attention"):
                values["layer"] = ops.constant(1, DType.int32, DeviceRef.CPU())
            graph.output(*few.kernel(name, values, results, **parameters))

    for storage in (dtype, DType.int8):
        _add_products(module, states, few, many, storage)
    with new_graph("attention", [states, states, states], module) as graph:
        graph.output(many.attention(*(v.tensor for v in graph.inputs), heads=HEADS))
    with new_graph(
        "norm", [few.floats("a", "b", WIDTH), few.floats(WIDTH), few.floats(WIDTH)], module
    ) as graph:
        graph.output(many.norm(*(v.tensor for v in graph.inputs)))
    add(
        "im2col",
        {"x": few.floats("items", WIDTH, "frames")},
        [few.tensor("items", "states", 3 * WIDTH)],
        source=DType.float32,
        result=dtype,
        stride=2,
        channels_first=True,
    )
    add(
        "self_attention",
        {
            "kv_cache": BufferType(dtype, [2, 2, "slots", CONTEXT, WIDTH], device),
            "qkv": few.tensor("items", "queries", 3 * WIDTH),
            "slot_table": few.integers("rows", CONTEXT),
            "positions": few.integers("rows"),
        },
        [states],
        tensor_cores=few.tensor_cores,
        head_size=HEAD,
        group=8,
        early=few.early,
    )
    add(
        "cross_attention",
        {
            "queries": states,
            "cross_kv": few.tensor(2, "windows", "frames", 2 * WIDTH),
            "windows": few.integers("items"),
        },
        [states, few.floats(SPLITS, "items", "queries", HEADS, HEAD + 2)],
        tensor_cores=few.tensor_cores,
        head_size=HEAD,
        group=8,
        splits=SPLITS,
        early=few.early,
    )
    add(
        "probabilities",
        {
            "logits": few.floats("items", "queries", VOCABULARY),
            "ids": few.integers("items", "queries", "count"),
            "limit": few.integers(1),
        },
        [few.floats("items", "queries", "count")],
    )
    return module


def _add_products(
    module: Module, states: TensorType, few: Layers, many: Layers, storage: DType
) -> None:
    """Graphs of what reads matrices storage in a type."""
    own = "_int8" if storage == DType.int8 else ""

    def matrix(rows: int, depth: int = WIDTH) -> list[TensorType | BufferType]:
        weight = Weight("", (rows, depth), matrix=True)
        return [one.type(few.device) for one in weight.inputs(storage)]

    linear = [*matrix(HIDDEN), few.floats(HIDDEN)]
    residual = few.floats("items", "queries", HIDDEN)
    normed = [few.floats("items", "queries", WIDTH), few.floats(WIDTH), few.floats(WIDTH)]
    with new_graph(f"normed{own}", [*normed, *linear], module) as graph:
        graph.output(few.normed_linear(*(v.tensor for v in graph.inputs), activate=True))
    for name, layers in (("few", few), ("many", many)):
        with new_graph(f"linear_{name}{own}", [states, *linear], module) as graph:
            graph.output(layers.linear(*(v.tensor for v in graph.inputs), activate=True))
        with new_graph(f"added_{name}{own}", [residual, states, *linear], module) as graph:
            graph.output(layers.added(*(v.tensor for v in graph.inputs)))
    deep = [few.tensor("items", "queries", DEEP), *matrix(ODD, DEEP), few.floats(ODD)]
    with new_graph(f"deep{own}", deep, module) as graph:
        graph.output(few.linear(*(v.tensor for v in graph.inputs)))
    embeddings = matrix(VOCABULARY)
    with new_graph(f"logits{own}", [states, *embeddings], module) as graph:
        graph.output(few.logits(*(v.tensor for v in graph.inputs)))
    places = [
        few.integers("items", "queries"),
        few.integers("rows"),
        few.floats(CONTEXT, WIDTH),
    ]
    with new_graph(f"embed{own}", [*places, *embeddings], module) as graph:
        graph.output(few.embedded(*(v.tensor for v in graph.inputs)))


def kernels_artifact(device: Device, dtype: DType, session: Session) -> ArtifactSpec:
    """What `compiled` is to compile."""
    generation = newest(device, dtype)
    return {
        "name": f"kernels-{device.api}-{dtype.name}",
        "build": lambda: build(DeviceRef.from_device(device), device.api, dtype, generation),
        "key": {"dtype": dtype.name, "kernels": 4, "generation": generation},
        "session": session,
        "about_seconds": 120,
    }


def check_kernels(device: Device, dtype: DType) -> Iterator[Check]:
    """Makes every check once."""
    kernels = KernelChecks(device, dtype)
    for name, error in checks(dtype).items():
        yield Check(name, error(kernels))


def checks(dtype: DType) -> dict[str, Callable[[KernelChecks], float]]:
    """Every check of the kernels of a type, by name: the relative error on new random inputs."""
    K = KernelChecks
    found: dict[str, Callable[[KernelChecks], float]] = {}
    for queries in (1, 5, 33):
        rows = f"{ITEMS * queries} rows"
        for storage in (dtype, DType.int8):
            own = _own(storage)
            for kind in ("few", "many"):
                given = {"kind": kind, "queries": queries, "storage": storage}
                found[f"linear_{kind}{own}, {rows}"] = partial(K.linear, **given)
                found[f"added_{kind}{own}, {rows}"] = partial(K.added, **given)
            for name, product in (("normed", K.normed), ("deep", K.deep), ("logits", K.logits)):
                found[f"{name}{own}, {rows}"] = partial(product, queries=queries, storage=storage)
        found[f"attend_window, {queries} queries"] = partial(K.cross_attention, queries=queries)
    for queries in (1, 3):  # so many windows that their frames are not split
        many = partial(K.cross_attention, queries=queries, items=130, frames=150)
        found[f"attend_window, {queries} queries of each of many"] = many
    found["attention"] = K.attention
    for tokens in (1, 11):
        found[f"attend_history, {tokens} tokens"] = partial(K.self_attention, tokens=tokens)
    found["norm"] = K.norm
    for storage in (dtype, DType.int8):
        found[f"embed{_own(storage)}"] = partial(K.embed, storage=storage)
    found["unfold"] = K.im2col
    found["probabilities"] = K.probabilities
    return found


class KernelChecks:
    """The compiled kernels of a device and a type; each method is a check of one kernel."""

    def __init__(self, device: Device, dtype: DType) -> None:
        session = Session([device])
        self.models = session.init_all(compiled(**kernels_artifact(device, dtype, session)))
        self.device = device
        self.dtype = dtype

    def linear(self, kind: str, queries: int, storage: DType) -> float:
        x, bias = self._half(ITEMS, queries, WIDTH), self._float(HIDDEN)
        weight, exact = self._matrix(storage, HIDDEN, 0.1)
        (found,) = self._run(f"linear_{kind}{_own(storage)}", x[0], *weight, bias[0])
        return _error(found, _gelu(x[1] @ exact.T + bias[1]))

    def added(self, kind: str, queries: int, storage: DType) -> float:
        x, bias = self._half(ITEMS, queries, WIDTH), self._float(HIDDEN)
        weight, exact = self._matrix(storage, HIDDEN, 0.1)
        residual = self._float(ITEMS, queries, HIDDEN)
        (found,) = self._run(f"added_{kind}{_own(storage)}", residual[0], x[0], *weight, bias[0])
        return _error(found, residual[1] + x[1] @ exact.T + bias[1])

    def normed(self, queries: int, storage: DType) -> float:
        x, bias = self._float(ITEMS, queries, WIDTH), self._float(HIDDEN)
        gamma, beta = self._float(WIDTH), self._float(WIDTH)
        weight, exact = self._matrix(storage, HIDDEN, 0.1)
        (found,) = self._run(f"normed{_own(storage)}", x[0], gamma[0], beta[0], *weight, bias[0])
        return _error(found, _gelu(_normed(x[1], gamma[1], beta[1]) @ exact.T + bias[1]))

    def deep(self, queries: int, storage: DType) -> float:
        x, bias = self._half(ITEMS, queries, DEEP), self._float(ODD)
        weight, exact = self._matrix(storage, ODD, 0.1, DEEP)
        (found,) = self._run(f"deep{_own(storage)}", x[0], *weight, bias[0])
        return _error(found, x[1] @ exact.T + bias[1])

    def logits(self, queries: int, storage: DType) -> float:
        x = self._half(ITEMS, queries, WIDTH)
        weight, exact = self._matrix(storage, VOCABULARY)
        (found,) = self._run(f"logits{_own(storage)}", x[0], *weight)
        return _error(found, x[1] @ exact.T)

    def attention(self, items: int = 2, frames: int = 201) -> float:
        q, k, v = (self._half(items, frames, WIDTH, scale=1.5) for _ in range(3))
        (found,) = self._run("attention", q[0], k[0], v[0])
        expected = np.empty_like(q[1])
        for head in range(HEADS):
            part = slice(head * HEAD, (head + 1) * HEAD)
            weights = _softmax(q[1][..., part] @ k[1][..., part].swapaxes(1, 2) / math.sqrt(HEAD))
            expected[..., part] = weights @ v[1][..., part]
        return _error(found, expected)

    def cross_attention(self, queries: int, items: int = ITEMS, frames: int = 601) -> float:
        q = self._half(items, queries, WIDTH, scale=1.5)
        cross_kv = self._half(2, items, frames, 2 * WIDTH)
        windows = rng().permutation(items).astype(np.int32)
        parts = self._poison(SPLITS, items, queries, HEADS, HEAD + 2)
        found, _ = self._run("cross_attention", q[0], cross_kv[0], self._up(windows), q[0], parts)
        expected = np.empty_like(q[1])
        for item, window in enumerate(windows):
            storage = cross_kv[1][1, window]
            for head in range(HEADS):
                part = slice(head * HEAD, (head + 1) * HEAD)
                weights = _softmax(q[1][item][:, part] @ storage[:, part].T / math.sqrt(HEAD))
                expected[item][:, part] = weights @ storage[:, WIDTH:][:, part]
        return _error(found, expected)

    def self_attention(self, tokens: int, rows: int = 5) -> float:
        qkv = self._half(rows, tokens, 3 * WIDTH)
        cache = self._half(2, 2, rows, CONTEXT, WIDTH)
        slot_table = rng().integers(0, rows, (rows, CONTEXT)).astype(np.int32)
        # Rows advance together: what one writes, no other has in its history.
        positions = np.full(rows, rng().integers(1, CONTEXT - tokens), np.int32)
        for row, position in enumerate(positions):
            slot_table[row, position:] = row
        output = self._half(rows, tokens, WIDTH)[0]
        (found,) = self._run(
            "self_attention", cache[0], qkv[0], self._up(slot_table), self._up(positions), output
        )
        expected = np.empty((rows, tokens, WIDTH))
        for row, position in enumerate(positions):
            fresh = qkv[1][row]
            past = cache[1][1][:, slot_table[row, :position], np.arange(position)]
            keys = np.concatenate([past[0], fresh[:, WIDTH : 2 * WIDTH]])
            values = np.concatenate([past[1], fresh[:, 2 * WIDTH :]])
            hidden = np.arange(len(keys)) > position + np.arange(tokens)[:, None]
            for head in range(HEADS):
                part = slice(head * HEAD, (head + 1) * HEAD)
                scores = fresh[:, part] @ keys[:, part].T / math.sqrt(HEAD)
                expected[row][:, part] = (
                    _softmax(np.where(hidden, -np.inf, scores)) @ (values[:, part])
                )
        return _error(found, expected)

    def norm(self) -> float:
        x, gamma, beta = self._float(3, 7, WIDTH), self._float(WIDTH), self._float(WIDTH)
        (found,) = self._run("norm", x[0], gamma[0], beta[0])
        return _error(found, _normed(x[1], gamma[1], beta[1]))

    def embed(self, storage: DType) -> float:
        (embeddings, exact), encodings = (
            self._matrix(storage, VOCABULARY),
            self._float(CONTEXT, WIDTH),
        )
        tokens = rng().integers(0, VOCABULARY, (3, 10)).astype(np.int32)
        positions = rng().integers(0, CONTEXT - 2, 15).astype(np.int32)  # two tokens a row
        (found,) = self._run(
            f"embed{_own(storage)}",
            self._up(tokens),
            self._up(positions),
            encodings[0],
            *embeddings,
        )
        places = (positions[:, None] + np.arange(2)).reshape(3, 10)
        return _error(found, exact[tokens] + encodings[1][places])

    def im2col(self) -> float:
        x = self._float(2, WIDTH, 37)
        like = self._half(2, 19, 3 * WIDTH)[0]
        (found,) = self._run("im2col", x[0], like)
        padded = np.pad(x[1], ((0, 0), (0, 0), (1, 1)))
        rows = [padded[:, :, 2 * t : 2 * t + 3].swapaxes(1, 2) for t in range(19)]
        return _error(found, np.stack(rows, 1).reshape(2, 19, 3 * WIDTH))

    def probabilities(self) -> float:
        logits = self._float(2, 3, VOCABULARY)
        ids = rng().integers(0, 500, (2, 3, 4)).astype(np.int32)
        limit = np.array([501], np.int32)
        poisoned = self._poison(2, 3, 4)
        (found,) = self._run("probabilities", logits[0], self._up(ids), self._up(limit), poisoned)
        expected = np.take_along_axis(_softmax(logits[1][..., :501]), ids, -1)
        return _error(found, expected)

    def _half(self, *shape: int, scale: float = 1) -> tuple[Buffer, np.ndarray]:
        """Normal numbers of the type that is checked, on the device and exactly in float64."""
        values = rng().normal(0, scale, shape).astype(np.float32)
        buffer = on_device(values, self.dtype, self.device)
        return buffer, _values(buffer)

    def _matrix(
        self, storage: DType, rows: int, scale: float = 1, depth: int = WIDTH
    ) -> tuple[list[Buffer], np.ndarray]:
        """A matrix ``[rows, depth]`` as inputs of a graph, and exactly in float64."""
        if storage != DType.int8:
            buffer, exact = self._half(rows, depth, scale=scale)
            return [buffer], exact
        values = rng().integers(-128, 128, (rows, depth)).astype(np.int8)
        scales = rng().uniform(0.5, 2, rows).astype(np.float32) * np.float32(scale / 74)
        return [self._up(values), self._up(scales)], values * scales[:, None].astype(np.float64)

    def _float(self, *shape: int) -> tuple[Buffer, np.ndarray]:
        values = rng().normal(0, 1, shape).astype(np.float32)
        return self._up(values), values.astype(np.float64)

    def _poison(self, *shape: int) -> Buffer:
        """For its shape; its content shows where a kernel reads what it should write."""
        return self._up(np.full(shape, np.nan, np.float32))

    def _up(self, array: np.ndarray) -> Buffer:
        return Buffer.from_numpy(np.ascontiguousarray(array)).to(self.device)

    def _run(self, name: str, *inputs: Buffer) -> list[np.ndarray]:
        return [_values(output) for output in self.models[name].execute(*inputs)]


def _error(found: np.ndarray, expected: np.ndarray) -> float:
    """Relative, in the norm of the whole output; infinite where something is not a number."""
    assert found.shape == expected.shape, (found.shape, expected.shape)
    difference = float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
    return difference if math.isfinite(difference) else math.inf


def _own(storage: DType) -> str:
    """What the name of a graph says of what its matrix is kept in."""
    return "_int8" if storage == DType.int8 else ""


def _values(buffer: Buffer) -> np.ndarray:
    """Of any float type, in float64."""
    if buffer.dtype == DType.bfloat16:
        bits = buffer.view(DType.uint16).to_numpy().astype(np.uint32) << 16
        return bits.view(np.float32).astype(np.float64)
    return buffer.to_numpy().astype(np.float64)


def _gelu(x: np.ndarray) -> np.ndarray:
    result: np.ndarray = 0.5 * x * (1 + _erf(x / math.sqrt(2)))
    return result


def _normed(x: np.ndarray, gamma: np.ndarray, beta: np.ndarray) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    result: np.ndarray = centred / np.sqrt(centred.var(-1, keepdims=True) + 1e-5) * gamma + beta
    return result


def _softmax(x: np.ndarray) -> np.ndarray:
    exponentials = np.exp(x - x.max(-1, keepdims=True))
    result: np.ndarray = exponentials / exponentials.sum(-1, keepdims=True)
    return result
