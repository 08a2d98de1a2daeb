"""Proves the products of many rows, before anything that relies on them is timed.

A product may be right alone and wrong between others, at some sizes, or now and then. So each is
run again and again on the same numbers, alone and between the kernels that are beside it in an
encoder, where memory holds NaN before. All results have to be the same bits, and those of the
first repeat near float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from max.driver import Buffer, Device
from max.dtype import DType
from max.graph import DeviceRef, Module

from compat_tests.support.gpu_kernels import TOLERANCES
from compat_tests.support.randomness import rng
from whisper_max_backend.engine.compile.artifacts import ArtifactSpec, compiled
from whisper_max_backend.engine.compile.session import Session
from whisper_max_backend.engine.gpu.graphs.layers import Layers
from whisper_max_backend.engine.gpu.proofs import newest
from whisper_max_backend.engine.gpu.weights import on_device
from whisper_max_backend.engine.graphs.ops import new_graph

ROWS = (9, 1500, 12000)
SHAPES = ((1280, 1280), (1280, 5120), (5120, 1280))
"""Depth and columns."""
SMALL_ROWS, SMALL_SHAPES = (9, 70), ((128, 320),)
"""For a run on a CPU."""
REPEATS = 50
SAMPLE = 64
"""Rows that are compared with float64: all rows of so many would take a host minutes."""


@dataclass(frozen=True)
class Proof:
    """What is known of a product.

    Attributes:
        name: Its graph and sizes.
        error: Of the sampled rows, relative in their norm; infinite where something is no number.
        same: Whether every repeat gave the same bits.
    """

    name: str
    error: float
    same: bool


def shapes_for(device: Device) -> tuple[tuple[int, int], ...]:
    """Depths and columns that are proved on a device."""
    return SMALL_SHAPES if device.is_host else SHAPES


def products_artifact(device: Device, dtype: DType, session: Session) -> ArtifactSpec:
    """What `compiled` is to compile: each product alone, and between norm, GELU and residual."""
    shapes, generation = shapes_for(device), newest(device, dtype)

    def build() -> Module:
        module = Module()
        layers = Layers(DeviceRef.from_device(device), device.api, dtype, generation=generation)
        for depth, columns in shapes:
            x, weight = layers.tensor("items", "rows", depth), layers.tensor(columns, depth)
            bias = layers.floats(columns)
            with new_graph(f"alone_{depth}_{columns}", [x, weight, bias], module) as graph:
                graph.output(layers.linear(*(value.tensor for value in graph.inputs)))
            stream = layers.floats("items", "rows", depth)
            gain, back = layers.floats(depth), layers.tensor(depth, columns)
            inputs = [stream, gain, gain, weight, bias, back, gain]
            with new_graph(f"between_{depth}_{columns}", inputs, module) as graph:
                values = [value.tensor for value in graph.inputs]
                hidden = layers.linear(layers.norm(*values[:3]), *values[3:5])
                graph.output(hidden, layers.added(values[0], hidden, *values[5:]))
        return module

    return {
        "name": f"products-{device.api}-{dtype.name}",
        "build": build,
        "key": {"dtype": dtype.name, "shapes": shapes, "generation": generation},
        "session": session,
        "about_seconds": 60,
    }


def prove_products(device: Device, dtype: DType, repeats: int = REPEATS) -> Iterator[Proof]:
    """Every product, the smallest first."""
    session = Session([device])
    models = session.init_all(compiled(**products_artifact(device, dtype, session)))
    for rows in SMALL_ROWS if device.is_host else ROWS:
        for depth, columns in shapes_for(device):
            given = _Given(device, dtype, rows, depth, columns)
            for kind, inputs in (("alone", given.alone), ("between", given.between)):
                model = models[f"{kind}_{depth}_{columns}"]
                first: list[np.ndarray] = []
                same = True
                for _ in range(repeats):
                    given.poison(device)
                    found = [_bits(output) for output in model.execute(*inputs)]
                    first = first or found
                    same &= all(map(np.array_equal, first, found))
                error = given.error(kind, [_floats(each) for each in first])
                yield Proof(f"{kind}, {rows} x {depth} x {columns}", error, same)


def good(proof: Proof, dtype: DType) -> bool:
    """Whether a product can be relied on."""
    return proof.same and proof.error < TOLERANCES[dtype.name]


class _Given:
    """Inputs of the graphs, on the device and rounded in float64."""

    def __init__(self, device: Device, dtype: DType, rows: int, depth: int, columns: int) -> None:
        def floats(*shape: int, scale: float = 1) -> np.ndarray:
            return rng().normal(0, scale, shape).astype(np.float32)

        def up(values: np.ndarray) -> Buffer:
            return Buffer.from_numpy(values).to(device)

        self.rows = np.sort(rng().permutation(rows)[:SAMPLE])
        self.columns = columns
        stream, bias, gain = floats(1, rows, depth), floats(columns), floats(depth)
        x, weight, back = (
            on_device(values, dtype, device)
            for values in (
                stream,
                floats(columns, depth, scale=depth**-0.5),
                floats(depth, columns, scale=columns**-0.5),
            )
        )
        self.alone = [x, weight, up(bias)]
        self.between = [up(stream), up(gain), up(gain), weight, up(bias), back, up(gain)]
        self._stream = stream[0][self.rows].astype(np.float64)
        self._x = _floats(_bits(x))[0][self.rows]
        self._weight, self._back = (_floats(_bits(each)) for each in (weight, back))
        self._bias, self._gain = bias.astype(np.float64), gain.astype(np.float64)
        self._poison = up(np.full(rows * max(depth, columns), np.nan, np.float32))

    def poison(self, device: Device) -> None:
        """Leaves NaN in memory that the next outputs may be given."""
        left = [Buffer(DType.float32, self._poison.shape, device) for _ in range(2)]
        for buffer in left:
            buffer.inplace_copy_from(self._poison)

    def error(self, kind: str, found: list[np.ndarray]) -> float:
        """Of the sampled rows."""
        if kind == "alone":
            expected = [self._x @ self._weight.T + self._bias]
        else:
            centred = self._stream - self._stream.mean(-1, keepdims=True)
            scaled = centred / np.sqrt(centred.var(-1, keepdims=True) + 1e-5)
            normed = scaled * self._gain + self._gain
            hidden = normed @ self._weight.T + self._bias
            # What the next product takes is what the device has rounded.
            taken = found[0][0][self.rows]
            expected = [hidden, self._stream + taken @ self._back.T + self._gain]
        errors = [
            np.linalg.norm(each[0][self.rows] - right) / np.linalg.norm(right)
            for each, right in zip(found, expected, strict=True)
        ]
        finite = all(np.isfinite(each).all() for each in found)
        return float(max(errors)) if finite else float("inf")


def _bits(buffer: Buffer) -> np.ndarray:
    """Of any float type: bfloat16 as its bits, which NumPy has no type for."""
    if buffer.dtype == DType.bfloat16:
        return buffer.view(DType.uint16).to_numpy()
    return buffer.to_numpy()


def _floats(bits: np.ndarray) -> np.ndarray:
    """In float64, of what `_bits` gave."""
    if bits.dtype == np.uint16:
        return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return bits.astype(np.float64)
