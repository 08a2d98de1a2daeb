"""Device memory that requests borrow, so that no request pays for fresh memory."""

from __future__ import annotations

import math
import weakref
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Sequence

from max.driver import Buffer, Device
from max.dtype import DType

from ...system.unpatched_threads import new_rlock

_REMEMBERED = 16
"""Requests, the largest of which says what is worth keeping."""


class BufferPool:
    """Pieces of a device's memory for one purpose, given back when their borrower is collected.

    The last batch of a recording is mostly smaller than the others. It gets the beginning of a
    piece that one of those has left, which the first batch of the next recording gets again.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._lock = new_rlock()  # a borrower may be collected while this is held
        self._free: list[Buffer] = []  # by size
        self._recent: deque[int] = deque(maxlen=_REMEMBERED)

    def lend(self, borrower: object, dtype: DType, shape: Sequence[int]) -> Buffer:
        """A buffer of this type and shape, of undefined content, until `borrower` is gone."""
        size = math.prod(shape) * dtype.size_in_bytes
        with self._lock:
            self._recent.append(size)
            place = bisect_left(self._free, size, key=_size)
            if place < len(self._free):
                piece = self._free.pop(place)
            else:
                self._free.clear()  # too small, all of them
                piece = Buffer(DType.uint8, (size,), self._device)
        weakref.finalize(borrower, self._take_back, piece).atexit = False
        return piece[:size].view(dtype, tuple(shape))

    def _take_back(self, piece: Buffer) -> None:
        with self._lock:
            if _size(piece) <= 2 * max(self._recent):
                insort(self._free, piece, key=_size)


def _size(piece: Buffer) -> int:
    return int(piece.shape[0])
