"""A model's weights in the layout of the kernels: one after another, in the order of their use.

The order here is the one in which ``mojo/whisper_kernels`` reads them (``parameters.mojo`` and the
layers of encoder, decoder and memory). Every part begins at a multiple of `ALIGNMENT` bytes.
"""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from max.driver import Buffer
from max.dtype import DType

from .checkpoint import Checkpoint, Dimensions, dense
from .shared import shared_models
from .storage import EMBEDDINGS, FILE_TYPES, Storage

ALIGNMENT = 64
PANEL = 32
"""Columns of a panel (matrix.mojo)."""
TILE_BYTES = 64
"""Of the depth of a panel of int8 or bfloat16, which is a multiple of it (matrix.mojo)."""
_HEADER = 2 * 4 * PANEL

_SHARED_SIZE = 1 << 22
"""Numbers of a matrix that several threads pack."""


@dataclass(frozen=True)
class PackedWeights:
    """The weights as the graphs take them, each uint8 ``[bytes]``."""

    encoder: Buffer
    memory: Buffer
    decoder: Buffer
    embeddings: Buffer


def panel_bytes(storage: DType, depth: int) -> int:
    """Bytes of a panel of so many rows (matrix.mojo)."""
    size = int(storage.size_in_bytes)
    if storage in (DType.int8, DType.bfloat16):
        depth = _aligned(depth, TILE_BYTES // size)
    return (_HEADER if storage == DType.int8 else 0) + depth * PANEL * size


def matrix_bytes(storage: DType, depth: int, columns: int) -> int:
    """Bytes of a matrix in panels."""
    return -(-columns // PANEL) * panel_bytes(storage, depth)


def memory_shape(
    dimensions: Dimensions, storage: DType, frames: int, windows: int
) -> tuple[int, ...]:
    """Cross-attention keys and values: ``[layers, windows, heads, bytes]`` (attention.mojo).

    Windows that are shorter than the model's get as much room as those, so that one buffer serves
    all; encoder outputs that a caller brings may be longer.
    """
    heads, frames = dimensions.n_text_head, max(frames, dimensions.n_audio_ctx)
    head_size = dimensions.n_text_state // heads
    size = matrix_bytes(storage, head_size, frames) + matrix_bytes(storage, frames, head_size)
    return (dimensions.n_text_layer, windows, heads, size)


def cache_shape(dimensions: Dimensions, slots: int) -> tuple[int, ...]:
    """Self-attention keys and values: ``[layers, 2, slots, n_text_ctx, n_text_state]``."""
    return (dimensions.n_text_layer, 2, slots, dimensions.n_text_ctx, dimensions.n_text_state)


def packed_weights(checkpoint: Checkpoint, storage: Storage, threads: int) -> PackedWeights:
    """Every weight of a model, on the CPU.

    Args:
        checkpoint: The model, in any precision.
        storage: Types of the matrices; vectors are float32.
        threads: Threads that do it.
    """
    d = checkpoint.dimensions
    return PackedWeights(
        # First, for it is the largest one: it is in memory twice while it is packed.
        embeddings=_packed(checkpoint, [_Part(EMBEDDINGS)], storage.decoder, threads),
        encoder=_packed(checkpoint, list(_encoder_parts(d)), storage.encoder, threads),
        memory=_packed(checkpoint, list(_memory_parts(d)), storage.encoder, threads),
        decoder=_packed(checkpoint, list(_decoder_parts(d)), storage.decoder, threads),
    )


@dataclass(frozen=True)
class _Part:
    """A weight, or one of several equal shares of its rows."""

    name: str
    share: int = 0
    shares: int = 1

    def of(self, array: np.ndarray) -> np.ndarray:
        """The part's rows of the whole."""
        if self.shares == 1:
            return array
        size = len(array) // self.shares
        return array[self.share * size : (self.share + 1) * size]


def _norm(name: str) -> Iterator[_Part]:
    yield _Part(f"{name}/gamma")
    yield _Part(f"{name}/beta")


def _linear(name: str, share: int = 0, shares: int = 1) -> Iterator[_Part]:
    yield _Part(f"{name}/weight", share, shares)
    yield _Part(f"{name}/bias", share, shares)


def _feed_forward(name: str) -> Iterator[_Part]:
    yield from _norm(f"{name}/layer_norm")
    yield from _linear(f"{name}/linear_0")
    yield from _linear(f"{name}/linear_1")


def _encoder_parts(dimensions: Dimensions) -> Iterator[_Part]:
    yield from _linear("encoder/conv1")
    yield from _linear("encoder/conv2")
    for index in range(dimensions.n_audio_layer):
        name = f"encoder/layer_{index}"
        yield from _norm(f"{name}/self_attention/layer_norm")
        yield from _linear(f"{name}/self_attention/linear_0")
        yield from _linear(f"{name}/self_attention/linear_1")
        yield from _feed_forward(f"{name}/ffn")
    yield from _norm("encoder/layer_norm")


def _memory_parts(dimensions: Dimensions) -> Iterator[_Part]:
    for index in range(dimensions.n_text_layer):
        for share in range(2):  # keys, values
            yield from _linear(f"decoder/layer_{index}/attention/linear_1", share, 2)


def _decoder_parts(dimensions: Dimensions) -> Iterator[_Part]:
    yield _Part("decoder/position_encodings/encodings")
    for index in range(dimensions.n_text_layer):
        name = f"decoder/layer_{index}"
        yield from _norm(f"{name}/self_attention/layer_norm")
        for share in range(3):  # queries, keys, values
            yield from _linear(f"{name}/self_attention/linear_0", share, 3)
        yield from _linear(f"{name}/self_attention/linear_1")
        yield from _norm(f"{name}/attention/layer_norm")
        yield from _linear(f"{name}/attention/linear_0")
        yield from _linear(f"{name}/attention/linear_2")
        yield from _feed_forward(f"{name}/ffn")
    yield from _norm("decoder/layer_norm")


def _packed(checkpoint: Checkpoint, parts: list[_Part], storage: DType, threads: int) -> Buffer:
    """The parts one after another."""
    sizes = [_aligned(_size(checkpoint, part, storage), ALIGNMENT) for part in parts]
    blob = _aligned_bytes(sum(sizes))
    place = 0
    for part, size in zip(parts, sizes, strict=True):
        target = blob[place : place + size]
        if part.name.endswith("/weight"):
            _pack_matrix(checkpoint, part, storage, target, threads)
        else:
            values = part.of(dense(checkpoint.weights, part.name)).reshape(-1)
            target[: 4 * values.size].view(np.float32)[:] = values
        place += size
    return Buffer.from_numpy(blob)


def _size(checkpoint: Checkpoint, part: _Part, storage: DType) -> int:
    shape = checkpoint.weights[part.name].shape
    if not part.name.endswith("/weight"):
        return 4 * int(np.prod(shape)) // part.shares
    return matrix_bytes(storage, int(np.prod(shape[1:])), shape[0] // part.shares)


def _pack_matrix(
    checkpoint: Checkpoint, part: _Part, storage: DType, target: np.ndarray, threads: int
) -> None:
    """A weight in panels; a convolution ``[out, in, kernel]`` as one over ``[kernel, in]``."""
    weight = checkpoint.weights[part.name]
    scale = checkpoint.weights.get(part.name + "_scale")
    if weight.dtype not in FILE_TYPES:
        weight, scale = dense(checkpoint.weights, part.name), None
    weight = part.of(weight)
    if weight.ndim == 3:
        weight = weight.transpose(0, 2, 1).reshape(len(weight), -1)
    outputs, inputs = weight.shape
    dtype = FILE_TYPES[weight.dtype]
    values = _lent(np.ascontiguousarray(weight)).view(dtype, (outputs, inputs))
    factors = np.ones(outputs, np.float32)
    if scale is not None:
        factors /= part.of(np.asarray(scale, np.float32).reshape(-1))
    convert = shared_models()[f"pack_{dtype.name}_{storage.name}"]
    # Threads that wait for each other over little cost more than they bring.
    count = np.array([threads if weight.size >= _SHARED_SIZE else 1], np.int32)
    convert.execute(Buffer.from_numpy(target), values, factors, count)
    _give_back(checkpoint.weights[part.name])


def _give_back(array: np.ndarray) -> None:
    """Lets go of the memory of a part of a mapped file, which is read again if it is needed."""
    owner: Any = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if not isinstance(owner, mmap.mmap) or not hasattr(owner, "madvise"):
        return
    first = array.ctypes.data - np.frombuffer(owner, np.uint8, 1).ctypes.data
    start = first // mmap.PAGESIZE * mmap.PAGESIZE
    owner.madvise(mmap.MADV_DONTNEED, start, first + array.nbytes - start)


def _aligned(size: int, unit: int) -> int:
    return -(-size // unit) * unit


def _aligned_bytes(size: int) -> np.ndarray:
    """Zeroed memory at a multiple of `ALIGNMENT`."""
    memory = np.zeros(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size]


def _lent(array: np.ndarray) -> Buffer:
    """The array as a buffer: of the same memory, where that is not strictly read-only.

    DLPack does not lend read-only arrays; weights are views of a private mapping, marked so.
    """
    array = array.view()
    with contextlib.suppress(ValueError):  # raised for read-only memory, which is then copied
        array.flags.writeable = True
    return Buffer.from_numpy(array)
