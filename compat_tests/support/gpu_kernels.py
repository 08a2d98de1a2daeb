"""Every kernel of the device graphs alone, against float64 NumPy on random inputs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from max.driver import Buffer, Device
from max.dtype import DType
from max.graph import BufferType, DeviceRef, Module, TensorType, ops

from compat_tests.support.randomness import rng
from whisper_max_backend.engine.compile.artifacts import ArtifactSpec, compiled
from whisper_max_backend.engine.compile.session import LoadedGraph, Session
from whisper_max_backend.engine.gpu.graphs.layers import Layers
from whisper_max_backend.engine.gpu.graphs.weights import Weight
from whisper_max_backend.engine.gpu.weights import on_device
from whisper_max_backend.engine.graphs.ops import new_graph

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


def build(device: DeviceRef, api: str, dtype: DType) -> Module:
    """A graph for each kernel, and for the products and the attention that are MAX's."""
    module = Module()
    many, few = Layers(device, api, dtype), Layers(device, api, dtype, few=True)
    states = few.tensor("items", "queries", WIDTH)

    def add(
        name: str,
        inputs: Sequence[TensorType | BufferType],
        results: Sequence[TensorType],
        **parameters: bool | int | DType,
    ) -> None:
        with new_graph(name, [*inputs, *results], module) as graph:
            values = [
                value.buffer if isinstance(kind, BufferType) else value.tensor
                for value, kind in zip(graph.inputs, inputs, strict=False)
            ]
            if name.endswith("_attention"):
                values.append(ops.constant(1, DType.int32, DeviceRef.CPU()))
            graph.output(*few.kernel(name, values, results, **parameters))

    for kept in (dtype, DType.int8):
        _add_products(module, states, few, many, kept)
    with new_graph("attention", [states, states, states], module) as graph:
        graph.output(many.attention(*(v.tensor for v in graph.inputs), heads=HEADS))
    with new_graph(
        "norm", [few.floats("a", "b", WIDTH), few.floats(WIDTH), few.floats(WIDTH)], module
    ) as graph:
        graph.output(many.norm(*(v.tensor for v in graph.inputs)))
    add(
        "im2col",
        [few.floats("items", WIDTH, "frames")],
        [few.tensor("items", "states", 3 * WIDTH)],
        source=DType.float32,
        result=dtype,
        stride=2,
        channels_first=True,
    )
    cache = BufferType(dtype, [2, 2, "slots", CONTEXT, WIDTH], device)
    add(
        "self_attention",
        [
            cache,
            few.tensor("items", "queries", 3 * WIDTH),
            few.integers("rows", CONTEXT),
            few.integers("rows"),
        ],
        [states],
        head_size=HEAD,
        group=8,
    )
    cross_kv = few.tensor(2, "windows", "frames", 2 * WIDTH)
    add(
        "cross_attention",
        [states, cross_kv, few.integers("items")],
        [states, few.floats(SPLITS, "items", "queries", HEADS, HEAD + 2)],
        head_size=HEAD,
        group=8,
        splits=SPLITS,
    )
    logits = few.floats("items", "queries", VOCABULARY)
    add(
        "probabilities",
        [logits, few.integers("items", "queries", "count"), few.integers(1)],
        [few.floats("items", "queries", "count")],
    )
    return module


def _add_products(
    module: Module, states: TensorType, few: Layers, many: Layers, kept: DType
) -> None:
    """Graphs of what reads matrices kept in a type."""
    own = "_int8" if kept == DType.int8 else ""

    def matrix(rows: int, depth: int = WIDTH) -> list[TensorType]:
        return Weight("", (rows, depth), matrix=True).types(kept, few.device)

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
    return {
        "name": f"kernels-{device.api}-{dtype.name}",
        "build": lambda: build(DeviceRef.from_device(device), device.api, dtype),
        "key": {"dtype": dtype.name, "kernels": 4},
        "session": session,
        "about_seconds": 120,
    }


def check_kernels(device: Device, dtype: DType) -> Iterator[Check]:
    """Runs every kernel on inputs that are new each time."""
    session = Session([device])
    models = session.init_all(compiled(**kernels_artifact(device, dtype, session)))
    yield from _Checks(models, device, dtype).all()


class _Checks:
    def __init__(self, models: Mapping[str, LoadedGraph], device: Device, dtype: DType) -> None:
        self.models = models
        self.device = device
        self.dtype = dtype
        self.rng = rng()

    def all(self) -> Iterator[Check]:
        for queries in (1, 5, 33):
            for kept in (self.dtype, DType.int8):
                yield from self._products(3, queries, kept)
            yield self._window(3, queries)
        yield self._attention(2, 201)
        for tokens in (1, 11):
            yield self._history(5, tokens)
        yield self._norm()
        for kept in (self.dtype, DType.int8):
            yield self._embed(kept)
        yield self._im2col()
        yield self._probabilities()

    def _products(self, items: int, queries: int, kept: DType) -> Iterator[Check]:
        own = "_int8" if kept == DType.int8 else ""
        rows = f"{items * queries} rows"
        x, (weight, exact) = self._half(items, queries, WIDTH), self._matrix(kept, HIDDEN, 0.1)
        bias, residual = self._float(HIDDEN), self._float(items, queries, HIDDEN)
        bias_of_odd = self._float(ODD)
        y = x[1] @ exact.T + bias[1]
        for name in (f"few{own}", f"many{own}"):
            (found,) = self._run(f"linear_{name}", x[0], *weight, bias[0])
            yield self._check(
                f"linear_{name}, {rows}", found, 0.5 * y * (1 + _erf(y / math.sqrt(2)))
            )
            (found,) = self._run(f"added_{name}", residual[0], x[0], *weight, bias[0])
            yield self._check(f"added_{name}, {rows}", found, residual[1] + y)
        stream, gamma, beta = (
            self._float(items, queries, WIDTH),
            self._float(WIDTH),
            self._float(WIDTH),
        )
        (found,) = self._run(f"normed{own}", stream[0], gamma[0], beta[0], *weight, bias[0])
        y = _normed(stream[1], gamma[1], beta[1]) @ exact.T + bias[1]
        yield self._check(f"normed{own}, {rows}", found, 0.5 * y * (1 + _erf(y / math.sqrt(2))))
        deep, (weight, exact) = self._half(items, queries, DEEP), self._matrix(kept, ODD, 0.1, DEEP)
        (found,) = self._run(f"deep{own}", deep[0], *weight, bias_of_odd[0])
        yield self._check(f"deep{own}, {rows}", found, deep[1] @ exact.T + bias_of_odd[1])
        weight, exact = self._matrix(kept, VOCABULARY)
        (found,) = self._run(f"logits{own}", x[0], *weight)
        yield self._check(f"logits{own}, {rows}", found, x[1] @ exact.T)

    def _attention(self, items: int, frames: int) -> Check:
        q, k, v = (self._half(items, frames, WIDTH, scale=1.5) for _ in range(3))
        (found,) = self._run("attention", q[0], k[0], v[0])
        expected = np.empty_like(q[1])
        for head in range(HEADS):
            part = slice(head * HEAD, (head + 1) * HEAD)
            weights = _softmax(q[1][..., part] @ k[1][..., part].swapaxes(1, 2) / math.sqrt(HEAD))
            expected[..., part] = weights @ v[1][..., part]
        return self._check("attention", found, expected)

    def _window(self, items: int, queries: int) -> Check:
        frames = 601
        q = self._half(items, queries, WIDTH, scale=1.5)
        cross_kv = self._half(2, items, frames, 2 * WIDTH)
        windows = self.rng.permutation(items).astype(np.int32)
        parts = self._poison(SPLITS, items, queries, HEADS, HEAD + 2)
        found, _ = self._run("cross_attention", q[0], cross_kv[0], self._up(windows), q[0], parts)
        expected = np.empty_like(q[1])
        for item, window in enumerate(windows):
            kept = cross_kv[1][1, window]
            for head in range(HEADS):
                part = slice(head * HEAD, (head + 1) * HEAD)
                weights = _softmax(q[1][item][:, part] @ kept[:, part].T / math.sqrt(HEAD))
                expected[item][:, part] = weights @ kept[:, WIDTH:][:, part]
        return self._check(f"attend_window, {queries} queries", found, expected)

    def _history(self, rows: int, tokens: int) -> Check:
        qkv = self._half(rows, tokens, 3 * WIDTH)
        cache = self._half(2, 2, rows, CONTEXT, WIDTH)
        slot_table = self.rng.integers(0, rows, (rows, CONTEXT)).astype(np.int32)
        # Rows advance together: what one writes, no other has in its history.
        positions = np.full(rows, self.rng.integers(1, CONTEXT - tokens), np.int32)
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
        return self._check(f"attend_history, {tokens} tokens", found, expected)

    def _norm(self) -> Check:
        x, gamma, beta = self._float(3, 7, WIDTH), self._float(WIDTH), self._float(WIDTH)
        (found,) = self._run("norm", x[0], gamma[0], beta[0])
        return self._check("norm", found, _normed(x[1], gamma[1], beta[1]))

    def _embed(self, kept: DType) -> Check:
        name = "embed_int8" if kept == DType.int8 else "embed"
        (embeddings, exact), encodings = self._matrix(kept, VOCABULARY), self._float(CONTEXT, WIDTH)
        tokens = self.rng.integers(0, VOCABULARY, (3, 10)).astype(np.int32)
        positions = self.rng.integers(0, CONTEXT - 2, 15).astype(np.int32)  # two tokens a row
        (found,) = self._run(name, self._up(tokens), self._up(positions), encodings[0], *embeddings)
        places = (positions[:, None] + np.arange(2)).reshape(3, 10)
        return self._check(name, found, exact[tokens] + encodings[1][places])

    def _im2col(self) -> Check:
        x = self._float(2, WIDTH, 37)
        like = self._half(2, 19, 3 * WIDTH)[0]
        (found,) = self._run("im2col", x[0], like)
        padded = np.pad(x[1], ((0, 0), (0, 0), (1, 1)))
        rows = [padded[:, :, 2 * t : 2 * t + 3].swapaxes(1, 2) for t in range(19)]
        return self._check("unfold", found, np.stack(rows, 1).reshape(2, 19, 3 * WIDTH))

    def _probabilities(self) -> Check:
        logits = self._float(2, 3, VOCABULARY)
        ids = self.rng.integers(0, 500, (2, 3, 4)).astype(np.int32)
        limit = np.array([501], np.int32)
        poisoned = self._poison(2, 3, 4)
        (found,) = self._run("probabilities", logits[0], self._up(ids), self._up(limit), poisoned)
        expected = np.take_along_axis(_softmax(logits[1][..., :501]), ids, -1)
        return self._check("probabilities", found, expected)

    def _half(self, *shape: int, scale: float = 1) -> tuple[Buffer, np.ndarray]:
        """Normal numbers of the type that is checked, on the device and exactly in float64."""
        values = self.rng.normal(0, scale, shape).astype(np.float32)
        buffer = on_device(values, self.dtype, self.device)
        return buffer, _values(buffer)

    def _matrix(
        self, kept: DType, rows: int, scale: float = 1, depth: int = WIDTH
    ) -> tuple[list[Buffer], np.ndarray]:
        """A matrix ``[rows, depth]`` as inputs of a graph, and exactly in float64."""
        if kept != DType.int8:
            buffer, exact = self._half(rows, depth, scale=scale)
            return [buffer], exact
        values = self.rng.integers(-128, 128, (rows, depth)).astype(np.int8)
        scales = self.rng.uniform(0.5, 2, rows).astype(np.float32) * np.float32(scale / 74)
        return [self._up(values), self._up(scales)], values * scales[:, None].astype(np.float64)

    def _float(self, *shape: int) -> tuple[Buffer, np.ndarray]:
        values = self.rng.normal(0, 1, shape).astype(np.float32)
        return self._up(values), values.astype(np.float64)

    def _poison(self, *shape: int) -> Buffer:
        """For its shape; its content shows where a kernel reads what it should write."""
        return self._up(np.full(shape, np.nan, np.float32))

    def _up(self, array: np.ndarray) -> Buffer:
        return Buffer.from_numpy(np.ascontiguousarray(array)).to(self.device)

    def _run(self, name: str, *inputs: Buffer) -> list[np.ndarray]:
        return [_values(output) for output in self.models[name].execute(*inputs)]

    def _check(self, name: str, found: np.ndarray, expected: np.ndarray) -> Check:
        assert found.shape == expected.shape, (name, found.shape, expected.shape)
        difference = float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
        return Check(name, difference if math.isfinite(difference) else math.inf)


def _values(buffer: Buffer) -> np.ndarray:
    """Of any float type, in float64."""
    if buffer.dtype == DType.bfloat16:
        bits = buffer.view(DType.uint16).to_numpy().astype(np.uint32) << 16
        return bits.view(np.float32).astype(np.float64)
    return buffer.to_numpy().astype(np.float64)


def _normed(x: np.ndarray, gamma: np.ndarray, beta: np.ndarray) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    result: np.ndarray = centred / np.sqrt(centred.var(-1, keepdims=True) + 1e-5) * gamma + beta
    return result


def _softmax(x: np.ndarray) -> np.ndarray:
    exponentials = np.exp(x - x.max(-1, keepdims=True))
    result: np.ndarray = exponentials / exponentials.sum(-1, keepdims=True)
    return result
