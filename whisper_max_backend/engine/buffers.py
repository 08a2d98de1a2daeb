"""Device buffers that requests borrow, so that no request pays for fresh memory."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence

from max.driver import Buffer, Device
from max.dtype import DType


class BufferPool:
    """Buffers of a device, given back when their borrower is collected."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._lock = threading.RLock()  # a borrower may be collected while this is held
        self._free: dict[tuple[DType, tuple[int, ...]], list[Buffer]] = {}

    def lend(self, borrower: object, dtype: DType, shape: Sequence[int]) -> Buffer:
        """A buffer of this type and shape, of undefined content, until `borrower` is gone."""
        key = (dtype, tuple(shape))
        with self._lock:
            kept = self._free.get(key)
            buffer = kept.pop() if kept else Buffer(dtype, key[1], self._device)
        weakref.finalize(borrower, self._take_back, key, buffer).atexit = False
        return buffer

    def _take_back(self, key: tuple[DType, tuple[int, ...]], buffer: Buffer) -> None:
        with self._lock:
            # Windows of one batch size follow each other; other sizes are not worth their memory.
            if key not in self._free:
                kind = key[0], len(key[1])
                self._free = {k: v for k, v in self._free.items() if (k[0], len(k[1])) != kind}
            self._free.setdefault(key, []).append(buffer)
