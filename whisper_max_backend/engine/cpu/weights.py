"""A model's weights in the layout of the kernels: one after another, in the order of their use.

The order here is the one in which ``mojo/whisper_kernels`` reads them: the layers of
encoder and decoder, and ``cpu/cross_kv.mojo``, by ``cpu/weight_reader.mojo``. Every part begins at
a multiple of `ALIGNMENT` bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from max.driver import Buffer
from max.dtype import DType

from ..checkpoint.dimensions import Dimensions, expected_shapes
from ..checkpoint.load import Checkpoint, dense
from ..checkpoint.weight_dtypes import EMBEDDINGS, FILE_TYPES, Storage
from .embeddings import CENTRE, INVERSES, EmbeddingColumns
from .weight_packer import ALIGNMENT, Packer, aligned, aligned_bytes

PANEL = 32
"""Columns of a panel (cpu/panels.mojo)."""
TILE_BYTES = 64
"""Of the depth of a panel of int8 or bfloat16, which is a multiple of it (cpu/panels.mojo)."""
_HEADER = 2 * 4 * PANEL


@dataclass(frozen=True)
class PackedWeights:
    """The weights as the graphs take them, each uint8 ``[bytes]``."""

    encoder: Buffer
    cross_kv: Buffer
    decoder: Buffer
    embeddings: Buffer


def panel_bytes(storage: DType, depth: int) -> int:
    """Bytes of a panel of so many rows (cpu/panels.mojo)."""
    size = int(storage.size_in_bytes)
    if storage in (DType.int8, DType.bfloat16):
        depth = aligned(depth, TILE_BYTES // size)
    return (_HEADER if storage == DType.int8 else 0) + depth * PANEL * size


def matrix_bytes(storage: DType, depth: int, columns: int) -> int:
    """Bytes of a matrix in panels."""
    return -(-columns // PANEL) * panel_bytes(storage, depth)


def cross_kv_shape(
    dimensions: Dimensions, storage: DType, frames: int, windows: int
) -> tuple[int, ...]:
    """Cross-attention keys and values: ``[layers, windows, heads, bytes]`` (cpu/attention.mojo).

    Windows that are shorter than the model's get as much room as those, so that one buffer serves
    all; encoder outputs that a caller brings may be longer.
    """
    heads, frames = dimensions.n_text_head, max(frames, dimensions.n_audio_ctx)
    head_size = dimensions.n_text_state // heads
    size = matrix_bytes(storage, head_size, frames) + matrix_bytes(storage, frames, head_size)
    return (dimensions.n_text_layer, windows, heads, size)


def kv_cache_shape(dimensions: Dimensions, storage: DType, slots: int) -> tuple[int, ...]:
    """Self-attention keys and values: ``[slots, layers, 2, n_text_ctx, n_text_state, bytes]``.

    What few slots use is the beginning of what many use, so that memory which a batch has left
    serves a smaller one without new pages.
    """
    size = int(storage.size_in_bytes)
    return (slots, dimensions.n_text_layer, 2, dimensions.n_text_ctx, dimensions.n_text_state, size)


def packed_weights(checkpoint: Checkpoint, storage: Storage, threads: int) -> PackedWeights:
    """Every weight of a model, on the CPU, in one piece of memory.

    Args:
        checkpoint: The model, in any precision.
        storage: Types of the matrices; vectors are float32.
        threads: Threads that do it.
    """
    d = checkpoint.dimensions
    groups = {
        # First, for it is the largest one, which is in memory twice while it is packed.
        "embeddings": _Group(list(_embedding_parts(storage.decoder)), storage.decoder),
        "encoder": _Group(list(_encoder_parts(d)), storage.encoder),
        "cross_kv": _Group(list(_cross_kv_parts(d)), storage.encoder),
        "decoder": _Group(list(_decoder_parts(d)), storage.decoder),
    }
    columns = None
    if storage.decoder == DType.int8:
        columns = EmbeddingColumns.of(checkpoint.weights)
    shapes = {**expected_shapes(d), **dict.fromkeys((CENTRE, INVERSES), (d.n_text_state,))}
    sizes = {name: group.sizes(shapes) for name, group in groups.items()}
    blob = aligned_bytes(sum(map(sum, sizes.values())))
    packer = Packer(blob, threads)
    buffers = {}
    place = 0
    for name, group in groups.items():
        start = place
        for part, size in zip(group.parts, sizes[name], strict=True):
            _put(checkpoint, part, group.storage, columns, packer, place)
            place += size
        buffers[name] = Buffer.from_numpy(blob[start:place])
    packer.flush()
    return PackedWeights(**buffers)


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


def _embedding_parts(storage: DType) -> Iterator[_Part]:
    if storage == DType.int8:
        yield _Part(CENTRE)
        yield _Part(INVERSES)
    yield _Part(EMBEDDINGS)


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


def _cross_kv_parts(dimensions: Dimensions) -> Iterator[_Part]:
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


@dataclass(frozen=True)
class _Group:
    """Parts that lie one after another, and what their matrices are kept in."""

    parts: list[_Part]
    storage: DType

    def sizes(self, shapes: Mapping[str, tuple[int, ...]]) -> list[int]:
        """Bytes of each part with what is left free behind it."""
        return [aligned(self._size(part, shapes[part.name]), ALIGNMENT) for part in self.parts]

    def _size(self, part: _Part, shape: tuple[int, ...]) -> int:
        if not part.name.endswith("/weight"):
            return 4 * math.prod(shape) // part.shares
        return matrix_bytes(self.storage, math.prod(shape[1:]), shape[0] // part.shares)


def _put(
    checkpoint: Checkpoint,
    part: _Part,
    storage: DType,
    columns: EmbeddingColumns | None,
    packer: Packer,
    place: int,
) -> None:
    """A vector, or a weight in panels; a convolution ``[out, in, kernel]`` as one over
    ``[kernel, in]``; `columns` if embeddings are int8."""
    if not part.name.endswith("/weight"):
        vector = columns.vectors.get(part.name) if columns else None
        if vector is None:
            vector = dense(checkpoint.weights, part.name)
        packer.put_vector(part.of(vector).reshape(-1), place)
        return
    saved = checkpoint.weights[part.name]
    scale = checkpoint.weights.get(part.name + "_scale")
    weight = saved
    if saved.dtype not in FILE_TYPES:
        weight, scale = dense(checkpoint.weights, part.name), None
    weight = part.of(weight)
    if weight.ndim == 3:
        weight = weight.transpose(0, 2, 1).reshape(len(weight), -1)
    factors = np.ones(len(weight), np.float32)
    if scale is not None:
        factors /= part.of(np.asarray(scale, np.float32).reshape(-1))
    packer.put_matrix(
        *(weight, factors, storage, place, part.of(saved)),
        columns=columns.rows() if columns and part.name == EMBEDDINGS else None,
    )
