"""What int8 kernels compute, in NumPy: rows and weights that are rotated, then rounded."""

from __future__ import annotations

import numpy as np

from whisper_max_backend.engine.compile.cpu_target import apply_cpu_target

APART = 16
"""Of the numbers that are mixed (cpu/rotation.mojo)."""
_BYTES = ("sapphirerapids", "cooperlake", "cascadelake", "alderlake", "apple-m2", "cortex-a76")
"""Processors that multiply bytes."""
_FEW = {
    **{"sapphirerapids": 8, "cooperlake": 6, "cascadelake": 6, "alderlake": 3},
    **{"apple-m2": 4, "cortex-a76": 4},
}
"""So many rows have 16 bits there: those that half a strip holds (cpu/strips.mojo)."""


def rotated(x: np.ndarray) -> np.ndarray:
    """Rows ``[..., depth]`` times the matrix of `cpu/rotation.mojo`."""
    x = np.array(x, np.float64)
    depth = x.shape[-1]
    whole = depth // (2 * APART) * (2 * APART)
    x[..., :whole] *= _signs(whole)
    start = 0
    while depth - start >= 2 * APART:
        size = 2 * APART
        while start + 2 * size <= depth:
            size *= 2
        block = x[..., start : start + size].reshape(*x.shape[:-1], -1, APART)
        mixed = np.einsum("ij,...jk->...ik", _hadamard(size // APART), block)
        x[..., start : start + size] = mixed.reshape(*x.shape[:-1], size)
        start += size
    return x


def rounded_weights(weight: np.ndarray) -> np.ndarray:
    """Rotated weights ``[outputs, inputs]`` as int8 keeps them: 127 stands for a row's largest."""
    turned = rotated(weight)
    scale = np.abs(turned).max(axis=1, keepdims=True) / 127
    scale[scale == 0] = 1
    return np.asarray(np.rint(turned / scale) * scale)


def rounded_rows(x: np.ndarray) -> np.ndarray:
    """Rotated rows as integers keep them, with a scale and a zero of each: 8 bits where the
    processor multiplies bytes, or 16 if they are few, else 15."""
    target = apply_cpu_target()
    largest = 255 if target in _BYTES else 32767
    if x.size // x.shape[-1] <= _FEW.get(target, 0):
        largest = 65535
    turned = rotated(x)
    low = turned.min(axis=-1, keepdims=True).clip(max=0)
    high = turned.max(axis=-1, keepdims=True).clip(min=0)
    scale = np.maximum(high - low, 1e-30) / largest
    zero = np.rint(-low / scale)
    return np.asarray(scale * (np.floor(turned / scale + zero + 0.5).clip(max=largest) - zero))


def _hadamard(size: int) -> np.ndarray:
    """Sylvester's matrix, orthogonal."""
    matrix: np.ndarray = np.ones((1, 1))
    while len(matrix) < size:
        matrix = np.kron([[1, 1], [1, -1]], matrix)
    return matrix / np.sqrt(size)


def _signs(count: int) -> np.ndarray:
    """1 or -1 for each number of a row, by the bits of a hash of every `APART` of them."""
    hashes = np.arange(1, count // APART + 1, dtype=np.uint32) * np.uint32(0x9E3779B9)
    hashes = (hashes ^ (hashes >> np.uint32(15))) * np.uint32(0x85EBCA6B)
    hashes ^= hashes >> np.uint32(13)
    bits = hashes[:, None] >> np.arange(APART, dtype=np.uint32) & np.uint32(1)
    return 1 - 2.0 * bits.reshape(-1)
