"""The kernels of the network against float64 NumPy: dense layers, convolutions, attention.

Inputs are new in every run; what a kernel must not read is NaN. The kernels of decoding and
alignment are tested in test_decoding_kernels.py, log-mel in test_log_mel.py.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from max.driver import Buffer
from max.dtype import DType

from compat_tests.unit.kernel_graph import HEADS, Kernels, normal, packed
from whisper_max_backend.engine.graphs.packing import CONVERSIONS

TOLERANCE = 2e-6
"""Largest ``||out - reference|| / ||reference||``: sums of up to a thousand float32 products."""

DEPTHS = [(5, 1), (31, 20), (384, 96), (512, 32), (1100, 33)]
"""(inputs, outputs): columns below, at and above a panel, more depth than a block."""


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


def gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def attend(queries: np.ndarray, keys: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Scaled dot-product attention, float64 [..., rows, head size]."""
    scores = queries @ keys.swapaxes(-1, -2) / math.sqrt(queries.shape[-1])
    return softmax(scores) @ values


def split(x: np.ndarray, heads: int) -> np.ndarray:
    """[batch, rows, state] -> [batch, heads, rows, head size]."""
    return x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2)


def join(x: np.ndarray) -> np.ndarray:
    """The inverse of `split`."""
    return x.swapaxes(1, 2).reshape(x.shape[0], x.shape[2], -1)


def attention_size(frames: int, head_size: int) -> int:
    """Floats of one head's packed keys and values (attention.mojo)."""
    return -(-frames // 32) * 32 * head_size + -(-head_size // 32) * 32 * frames


@pytest.mark.parametrize(("inputs", "outputs"), DEPTHS)
@pytest.mark.parametrize(("batch", "rows"), [(1, 1), (1, 5), (2, 7), (1, 23), (3, 101)])
def test_linear(kernels: Kernels, batch: int, rows: int, inputs: int, outputs: int) -> None:
    x, bias = normal(batch, rows, inputs), normal(outputs)
    weight = normal(outputs, inputs, scale=inputs**-0.5)
    residual = normal(batch, rows, outputs)
    product = x @ weight.T
    panels = packed(weight)
    assert_close(kernels("linear", x, panels, bias)[0], product + bias)
    assert_close(kernels("linear_gelu", x, panels, bias)[0], gelu(product + bias))
    summed = kernels("linear_residual", x, panels, bias, residual)[0]
    assert_close(summed, product + bias + residual)
    assert_close(kernels("project", x, panels, shapes=[outputs])[0], product)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    ("batch", "time", "inputs", "outputs"),
    [(1, 1, 3, 5), (2, 2, 80, 40), (1, 100, 128, 65), (2, 77, 20, 64), (3, 300, 6, 32)],
)
def test_convolution(
    kernels: Kernels, batch: int, time: int, inputs: int, outputs: int, stride: int
) -> None:
    x, weight, bias = normal(batch, time, inputs), normal(outputs, inputs, 3), normal(outputs)
    frames = (time - 1) // stride + 1
    residual = normal(frames, outputs)
    padded = np.pad(x, ((0, 0), (1, 1), (0, 0)))
    windows = np.stack([padded[:, k : k + time : stride] for k in range(3)], axis=-1)
    expected = gelu(np.einsum("btik,oik->bto", windows, weight) + bias)
    panels = packed(weight.transpose(0, 2, 1).reshape(outputs, -1))
    inputs_ = (x, panels, bias)
    assert_close(kernels(f"conv_{stride}", *inputs_, shapes=[frames])[0], expected)
    summed = kernels(f"conv_residual_{stride}", *inputs_, residual)[0]
    assert_close(summed, expected + residual)


def as_bfloat16(values: Any) -> tuple[Any, Buffer]:
    """The values rounded towards zero to bfloat16: as float32, and as a buffer of that type."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32) & np.uint32(0xFFFF0000)
    halves = (bits >> 16).astype(np.uint16)
    return bits.view(np.float32), Buffer.from_numpy(halves).view(DType.bfloat16, values.shape)


@pytest.mark.parametrize(
    ("kind", "storage"), [(source.name, target.name) for source, target in CONVERSIONS]
)
@pytest.mark.parametrize("shape", [(1, 1), (32, 7), (33, 5), (100, 130)])
def test_pack(kernels: Kernels, kind: str, storage: str, shape: tuple[int, int]) -> None:
    weight = normal(*shape, scale=30).astype(np.float32)
    # What is kept in the file's own type has no scale.
    scale = normal(shape[0]).astype(np.float32) if storage == "float32" else np.ones(shape[0], "f4")
    given: object = weight
    if kind == "bfloat16":
        weight, given = as_bfloat16(weight)
    elif kind != "float32":
        given = weight = weight.clip(-128, 127).astype(kind)
    expected = packed(weight.astype(np.float32) * scale[:, None])
    if storage == "bfloat16":
        bits = np.full(expected.shape, 0x7FFF, np.uint16)
        kernels(
            f"pack_{kind}_{storage}",
            Buffer.from_numpy(bits).view(DType.bfloat16, bits.shape),
            given,
            scale,
        )
        panels = (bits.astype(np.uint32) << 16).view(np.float32)
    else:
        panels = np.full(expected.shape, np.nan, storage)
        kernels(f"pack_{kind}_{storage}", panels, given, scale)
    np.testing.assert_array_equal(panels, expected.astype(panels.dtype))


@pytest.mark.parametrize(
    "shape", [(1, 1, 16, 10), (1, 5, 70, 45), (2, 9, 33, 64), (1, 40, 530, 100)]
)
def test_project_of_half_weights(kernels: Kernels, shape: tuple[int, int, int, int]) -> None:
    """Weights of smaller types are widened, not computed with."""
    batch, rows, inputs, outputs = shape
    x, weight = normal(batch, rows, inputs), normal(outputs, inputs)
    half = weight.astype(np.float16)
    (y,) = kernels("project_float16", x, packed(half), shapes=[(outputs,)])
    assert_close(y, x @ half.astype(np.float64).T)
    values, _ = as_bfloat16(weight)
    (y,) = kernels("project_bfloat16", x, as_bfloat16(packed(values))[1], shapes=[(outputs,)])
    assert_close(y, x @ values.astype(np.float64).T)


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 80, 33), (1, 128, 300)])
def test_time_major(kernels: Kernels, shape: tuple[int, int, int]) -> None:
    x = normal(*shape)
    np.testing.assert_array_equal(kernels("time_major", x)[0], x.swapaxes(1, 2))


@pytest.mark.parametrize("shape", [(1, 1, 9), (2, 5, 20), (1, 63, 384), (2, 100, 33), (1, 64, 512)])
@pytest.mark.parametrize("offset", [0.0, 10.0])
def test_layer_norm(kernels: Kernels, shape: tuple[int, int, int], offset: float) -> None:
    x, gamma, beta = normal(*shape, mean=offset), normal(shape[2]), normal(shape[2])
    variance = x.var(axis=-1, keepdims=True)
    expected = (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(variance + 1e-5) * gamma + beta
    assert_close(kernels("layer_norm", x, gamma, beta)[0], expected, 1e-5 if offset else TOLERANCE)


@pytest.mark.parametrize("head_size", [64, 32, 20])
@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize(("batch", "frames"), [(2, 1), (1, 31), (2, 50), (1, 96), (2, 333)])
def test_attention(kernels: Kernels, batch: int, frames: int, heads: int, head_size: int) -> None:
    state = heads * head_size
    x = normal(batch, frames, 3 * state, scale=1.5)
    # A head's room is that of the longest window: more than these frames need.
    size = attention_size(frames + 40, head_size)
    (memory,) = kernels("pack_attention", x, shapes=[(heads, size)])
    queries, keys, values = (split(part, heads) for part in np.split(x, 3, axis=-1))
    padded = -(-frames // 32) * 32
    np.testing.assert_array_equal(
        memory[..., : padded * head_size].reshape(batch, heads, -1, head_size, 32),
        np.pad(keys, ((0, 0), (0, 0), (0, padded - frames), (0, 0)))
        .reshape(batch, heads, -1, 32, head_size)
        .swapaxes(-1, -2),
    )
    memory[..., attention_size(frames, head_size) :] = np.nan
    (output,) = kernels("attention", x, memory, shapes=[state])
    assert_close(output, join(attend(queries, keys, values)))


@pytest.mark.parametrize("head_size", [64, 32, 20])
@pytest.mark.parametrize("queries", [1, 5, 13, 448])
@pytest.mark.parametrize("frames", [1, 45, 750])
def test_cross_attention(kernels: Kernels, frames: int, queries: int, head_size: int) -> None:
    layers, windows, heads = 2, 3, 2
    state = heads * head_size
    size = attention_size(frames + 33, head_size)
    memory = np.full((layers, windows, heads, size), np.nan, np.float32)
    states = [normal(windows, frames, 2 * state) for _ in range(layers)]
    for layer in reversed(range(layers)):
        kernels("pack_memory", memory, states[layer], [layer])
    window_of = np.array([2, 0, 2, 1])
    asked = normal(len(window_of), queries, state, scale=2)
    for layer in range(layers):
        (output,) = kernels("cross_attention", asked, memory, window_of, [frames], [layer])
        keys, values = (split(part, heads) for part in np.split(states[layer], 2, axis=-1))
        expected = attend(split(asked, heads), keys[window_of], values[window_of])
        assert_close(output, join(expected))


@pytest.mark.parametrize("head_size", [64, 32, 20])
@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize(("beams", "tokens"), [(1, 1), (1, 6), (5, 1), (3, 4)])
def test_self_attention(
    kernels: Kernels, beams: int, tokens: int, together: bool, head_size: int
) -> None:
    """Rows continue histories that lie scattered over the cache, as after many reorderings."""
    items, layers, layer, context = 2, 2, 1, 24
    rng = np.random.default_rng()
    rows, state = items * beams, HEADS * head_size
    positions = np.full(rows, 11) if together else rng.integers(0, context - tokens + 1, rows)
    positions[0] = positions[0] if together else context - tokens
    # Row r writes to slot r. History is there too, or in as many slots more; the last stays NaN.
    nowhere = 2 * rows
    cache = np.full((layers, 2, nowhere + 1, context, state), np.nan, np.float32)
    cache[layer, :, :nowhere] = normal(2, nowhere, context, state)
    origins = np.full((rows, context), nowhere)
    for row, position in enumerate(positions):
        cache[layer, :, row, position:] = np.nan
        for j in range(position):
            origins[row, j] = rng.integers(0 if j < positions.min() else rows, nowhere)
        origins[row, position : position + tokens] = row
    qkv = normal(items, beams * tokens, 3 * state, scale=1.5)
    after = cache.copy()
    (output,) = kernels("self_attention", qkv, cache, origins, positions, [layer])

    queries, keys, values = np.split(qkv.reshape(rows, tokens, 3 * state), 3, axis=-1)
    for row, position in enumerate(positions):
        after[layer, 0, row, position : position + tokens] = keys[row]
        after[layer, 1, row, position : position + tokens] = values[row]
    np.testing.assert_array_equal(cache, after)
    expected = np.empty((rows, tokens, state))
    for row, position in enumerate(positions):
        for t in range(tokens):
            length = position + t + 1
            places = origins[row, :length], np.arange(length)
            known = (split(part[places][None], HEADS) for part in after[layer].astype(np.float64))
            asked = split(queries[row : row + 1, t : t + 1].astype(np.float64), HEADS)
            expected[row, t] = join(attend(asked, *known))[0, 0]
    assert_close(output.reshape(expected.shape), expected)
