"""Matrices into panels, and products with them, against float64 NumPy.

Inputs are new in every run. The kernels of whole networks are tested in test_network.py, those of
decoding and alignment in test_decoding_kernels.py, log-mel in test_log_mel.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from max.dtype import DType

from compat_tests.support.kernel_graph import Kernels, normal, packed, packed_bfloat16
from compat_tests.support.miniature import to_bfloat16
from compat_tests.support.rotation import rounded_rows, rounded_weights
from whisper_max_backend.engine.compile.cpu_target import has_bfloat16
from whisper_max_backend.engine.cpu import weight_packer
from whisper_max_backend.engine.cpu.graphs.packing import CONVERSIONS
from whisper_max_backend.engine.cpu.weight_packer import ALIGNMENT, Packer, aligned, aligned_bytes
from whisper_max_backend.engine.cpu.weights import matrix_bytes

TOLERANCE = 2e-6
"""Largest ``||out - reference|| / ||reference||``: sums of up to a thousand float32 products."""

DEPTHS = [(5, 1), (31, 20), (384, 96), (512, 32), (1100, 33)]
"""(inputs, outputs): columns below, at and above a panel, depths of every remainder."""

ROWS = [(1, 1), (1, 5), (2, 7), (1, 23), (3, 101)]
"""(batch, rows): strips of every height, whole and with padding."""


@pytest.fixture(scope="module", params=[1, 3], ids="threads={}".format)
def kernels(request: pytest.FixtureRequest) -> Kernels:
    return Kernels(threads=request.param)


def assert_close(output: np.ndarray, reference: np.ndarray, tolerance: float = TOLERANCE) -> None:
    assert output.shape == reference.shape
    size = float(np.linalg.norm(reference))
    if reference.size < 32:
        # A few sums of terms around one may all happen to be nearly zero.
        size = max(size, math.sqrt(reference.size))
    error = np.linalg.norm(output - reference) / size
    assert error < tolerance, f"relative error {error}"


def from_bfloat16(bits: np.ndarray) -> np.ndarray:
    """The values of such bits."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def pack(
    weights: Sequence[np.ndarray],
    storage: str,
    scales: Sequence[np.ndarray] | None = None,
    threads: int = 1,
) -> list[np.ndarray]:
    """The kernel's panels of weights [outputs, inputs], all packed at once."""
    kept = DType[storage]
    scales = scales or [np.ones(len(weight), np.float32) for weight in weights]
    sizes = [aligned(matrix_bytes(kept, *weight.shape[::-1]), ALIGNMENT) for weight in weights]
    blob = aligned_bytes(sum(sizes))
    blob[:] = 0x7F
    filler = Packer(blob, threads)
    starts = np.cumsum([0, *sizes]).tolist()
    for weight, scale, start in zip(weights, scales, starts, strict=False):
        filler.put_matrix(weight, scale, kept, start, saved=weight)
    filler.flush()
    return [
        blob[start : start + matrix_bytes(kept, *weight.shape[::-1])]
        for weight, start in zip(weights, starts, strict=False)
    ]


FLOATS = [(kind.name, kept.name) for kind, kept in CONVERSIONS if kept != DType.int8]


@pytest.mark.parametrize(("kind", "storage"), FLOATS)
@pytest.mark.parametrize("threads", [1, 3])
def test_pack(kind: str, storage: str, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_packer, "SHARED", 0)
    weights, scales, expected = [], [], []
    for shape in [(1, 1), (32, 7), (33, 5), (100, 130)]:
        weight = normal(*shape, scale=30).astype(np.float32)
        # What is kept in the file's own type has no scale.
        scale = np.ones(shape[0], np.float32)
        if storage == "float32":
            scale = normal(shape[0]).astype(np.float32)
        if kind == "bfloat16":
            weights.append(to_bfloat16(weight))
            weight = from_bfloat16(weights[-1])
        else:
            weight = weight.clip(-128, 127).astype(kind)
            weights.append(weight)
        scaled = weight.astype(np.float32) * scale[:, None]
        scales.append(scale)
        expected.append(
            packed_bfloat16(to_bfloat16(scaled))
            if storage == "bfloat16"
            else packed(scaled.astype(storage))
        )
    for panels, right in zip(pack(weights, storage, scales, threads), expected, strict=True):
        np.testing.assert_array_equal(panels, right)


def test_pack_in_several_executions(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many matrices at once as there may be in memory twice; one that is larger by itself."""
    monkeypatch.setattr(weight_packer, "AT_ONCE", 1000)
    weights = [normal(*shape).astype(np.float32) for shape in [(5, 20), (7, 20), (40, 20), (2, 3)]]
    for panels, weight in zip(pack(weights, "float32"), weights, strict=True):
        np.testing.assert_array_equal(panels, packed(weight))


@pytest.mark.parametrize(("inputs", "outputs"), DEPTHS)
@pytest.mark.parametrize(("batch", "rows"), ROWS)
def test_logits(kernels: Kernels, batch: int, rows: int, inputs: int, outputs: int) -> None:
    """Matrices of smaller floats are widened; or the processor multiplies bfloat16, exactly."""
    x = normal(batch, rows, inputs)
    weight = normal(outputs, inputs, scale=inputs**-0.5)
    half = weight.astype(np.float16)
    bfloat16 = from_bfloat16(to_bfloat16(weight))
    cases = {
        "float32": (weight, packed(weight.astype(np.float32))),
        "float16": (half, packed(half)),
        "bfloat16": (bfloat16, packed_bfloat16(to_bfloat16(bfloat16))),
    }
    rounded = from_bfloat16(to_bfloat16(x)).astype(np.float64)
    for storage, (values, panels) in cases.items():
        given = rounded if storage == "bfloat16" and has_bfloat16() else x
        (y,) = kernels(f"logits_{storage}", x, panels, shapes=[outputs])
        assert_close(y, given @ values.astype(np.float64).T)


def int8_embeddings(
    weight: np.ndarray, scale: np.ndarray | None = None, centre: np.ndarray | None = None
) -> np.ndarray:
    """What `logits_int8` takes: a centre, the inverses of gains, which it does not use, panels."""
    inputs = weight.shape[1]
    centre = np.zeros(inputs) if centre is None else centre
    vectors = aligned_bytes(2 * aligned(4 * inputs, ALIGNMENT))
    vectors[: 4 * inputs] = centre.astype(np.float32).view(np.uint8)
    panels = pack([weight], "int8", None if scale is None else [scale])[0]
    return np.concatenate([vectors, panels])


@pytest.mark.parametrize("kind", ["float32", "float16", "int8"])
@pytest.mark.parametrize(("inputs", "outputs"), DEPTHS)
@pytest.mark.parametrize(("batch", "rows"), ROWS)
def test_int8(
    kernels: Kernels, kind: str, batch: int, rows: int, inputs: int, outputs: int
) -> None:
    """Rows and weights are rotated and rounded; their products lose nothing more."""
    x = normal(batch, rows, inputs, mean=1)
    weight = normal(outputs, inputs, scale=30).clip(-128, 127).astype(kind)
    weight[0] = 0
    scale, centre = normal(outputs).astype(np.float32), normal(inputs)
    (y,) = kernels("logits_int8", x, int8_embeddings(weight, scale, centre), shapes=[outputs])
    scaled = weight.astype(np.float64) * scale[:, None]
    expected = rounded_rows(x) @ rounded_weights(scaled).T + (x @ centre)[..., None]
    # What lies halfway between two integers may be rounded either way, and spoils the products of
    # its row or column. What was made of integers often lies there.
    assert_close(y, expected, 2e-2 if kind == "int8" else 6e-3)
    if kind != "int8" and batch * rows > 1:
        assert np.median(np.abs(y - expected)) < 1e-3 * np.sqrt(np.mean(expected**2))


@pytest.mark.parametrize("offset", [0.0, 5.0])
def test_int8_of_any_rows(kernels: Kernels, offset: float) -> None:
    """Rows are quantised each by itself, whatever lies around zero; a row of zeros stays so."""
    x = normal(1, 40, 512, mean=offset) * np.logspace(-6, 6, 40)[:, None]
    x[0, 3] = 0
    weight = normal(96, 512).astype(np.float32)
    (y,) = kernels("logits_int8", x, int8_embeddings(weight), shapes=[96])
    expected = x @ weight.astype(np.float64).T
    error = np.linalg.norm(y - expected, axis=-1) / np.linalg.norm(expected, axis=-1).clip(1e-30)
    assert error.max() < 0.02
    assert not y[0, 3].any()


@pytest.mark.parametrize("outlier", ["row", "weight"])
def test_int8_of_numbers_that_stand_out(kernels: Kernels, outlier: str) -> None:
    """A number that is a hundred times the others, of rows or of weights, does not hide them."""
    x, weight = normal(1, 40, 512), normal(96, 512)
    tall, flat = (x, weight) if outlier == "row" else (weight, x)
    tall[..., 100] = 100
    flat[..., 100] = 0
    (y,) = kernels("logits_int8", x, int8_embeddings(weight.astype(np.float32)), shapes=[96])
    expected = x @ weight.T
    error = np.linalg.norm(y - expected) / np.linalg.norm(expected)
    assert error < 0.08  # 0.11 and 0.23 without the rotation
