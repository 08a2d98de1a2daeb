"""Matrices into panels, by the kernel ``whisper.pack_weights``, many with one execution.

Most are too small for several threads to share one of them.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import Any

import numpy as np
from max.driver import Buffer
from max.dtype import DType

from ..checkpoint.weight_dtypes import FILE_TYPES
from .model_independent_graphs import common_graphs

ALIGNMENT = 64

AT_ONCE = 1 << 25
"""Bytes of matrices, all of them in memory twice, that one execution packs at most."""
SHARED = 1 << 23
"""Bytes of matrices from which on several threads pack them: to wake one takes a while."""


@dataclass(frozen=True)
class _Matrix:
    """Numbers ``[outputs, inputs]``, their factors ``[outputs]``, the factors and the centre of
    their columns ``[2, inputs]`` and where the panels begin."""

    weight: np.ndarray
    scale: np.ndarray
    columns: np.ndarray
    place: int
    saved: np.ndarray

    def row(self) -> tuple[int, ...]:
        """As the kernel takes it (pack_weights.mojo)."""
        arrays = self.weight, self.scale, self.columns
        return *(array.ctypes.data for array in arrays), self.place, *self.weight.shape


class Packer:
    """Puts weights into the memory that the kernels read."""

    def __init__(self, blob: np.ndarray, threads: int) -> None:
        """Fill ``blob [bytes]``; with so many threads."""
        self._blob = blob
        self._packed = Buffer.from_numpy(blob)
        self._threads = threads
        self._graph = ""
        self._matrices: list[_Matrix] = []

    def put_vector(self, values: np.ndarray, place: int) -> None:
        """Float32 numbers, from a byte of the blob on."""
        self._blob[place : place + values.nbytes].view(np.float32)[:] = values

    def put_matrix(
        self,
        weight: np.ndarray,
        scale: np.ndarray,
        storage: DType,
        place: int,
        saved: np.ndarray,
        columns: np.ndarray | None = None,
    ) -> None:
        """Panels of ``weight [outputs, inputs]`` times float32 ``scale [outputs]``.

        Those of int8 are rotated; before that, they are times the first row of float32
        ``columns [2, inputs]``, less the second.

        They are there after `flush`; the weight must not change until then. `saved` is what it was
        made of, whose memory may be let go of.
        """
        graph = f"pack_{FILE_TYPES[weight.dtype].name}_{storage.name}"
        if graph != self._graph or self._size() + weight.nbytes > AT_ONCE:
            self.flush()
        self._graph = graph
        if columns is None:
            columns = np.stack([np.ones(weight.shape[1]), np.zeros(weight.shape[1])])
        arrays = np.ascontiguousarray(weight), scale, np.ascontiguousarray(columns, np.float32)
        self._matrices.append(_Matrix(*arrays, place, saved))

    def flush(self) -> None:
        """Packs what was put, and lets go of it."""
        if not self._matrices:
            return
        rows = np.array([matrix.row() for matrix in self._matrices], np.int64)
        threads = self._threads if self._size() >= SHARED else 1
        common_graphs()[self._graph].execute(self._packed, rows, np.array([threads], np.int32))
        for matrix in self._matrices:
            _give_back(matrix.saved)
        self._matrices.clear()

    def _size(self) -> int:
        return sum(matrix.weight.nbytes for matrix in self._matrices)


def aligned(size: int, unit: int) -> int:
    """The next multiple of a unit."""
    return -(-size // unit) * unit


def aligned_bytes(size: int) -> np.ndarray:
    """Zeroed memory at a multiple of `ALIGNMENT`."""
    memory = np.zeros(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size]


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
