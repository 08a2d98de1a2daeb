"""Where requests keep keys and values: those of cross-attention, and the self-attention's cache."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from max.driver import Buffer, Device
from max.dtype import DType

from ...system.unpatched_threads import Condition
from ..search.protocol import Int32Array
from .buffer_pool import BufferPool

_log = logging.getLogger("whisper_max_backend")

BufferType = tuple[DType, tuple[int, ...]]

_REMEMBERED = 256
"""Requests for whose most windows at once the shared buffers keep their room."""


@dataclass(frozen=True)
class KVLayout:
    """Types and shapes of the buffers, on a device.

    Attributes:
        device: Where they are.
        cross_kv: Of frames and windows: cross-attention keys and values,
            ``[layers, windows, ...]``.
        kv_cache: Of slots, one for each hypothesis: layers, 2 for keys and values, slots,
            n_text_ctx and width, in an order of the device's.
        slot_axis: Where the slots stand in that order.
    """

    device: Device
    cross_kv: Callable[[int, int], BufferType]
    kv_cache: Callable[[int], BufferType]
    slot_axis: int

    def new_cross_kv(self, frames: int, windows: int) -> Buffer:
        """A buffer of undefined content for windows of so many frames."""
        dtype, shape = self.cross_kv(frames, windows)
        return Buffer(dtype, shape, self.device)

    def new_kv_cache(self, slots: int) -> Buffer:
        """A buffer of undefined content for hypotheses."""
        dtype, shape = self.kv_cache(slots)
        return Buffer(dtype, shape, self.device)

    def no_memory(self, frames: int, windows: int, slots: int) -> RuntimeError:
        """The error of a request for which the device has no memory."""
        cross_kv, kv_cache = _mib(self.cross_kv(frames, windows)), _mib(self.kv_cache(slots))
        free = self.device.stats.get("free_memory")
        is_free = "" if free is None else f", and {free >> 20} MiB are free"
        return RuntimeError(
            f"{self.device.label} {self.device.id} has no memory for a request of {windows} "
            f"windows and {slots} hypotheses: it needs {cross_kv} MiB for the keys and values of "
            f"cross-attention and {kv_cache} MiB for those of its tokens{is_free}. Give it fewer "
            "windows or beams, or close what else uses the device"
        )


class KVBuffers:
    """Buffers for the windows and hypotheses of one or several requests."""

    cross_kv: Buffer
    kv_cache: Buffer


@dataclass(eq=False)
class KVAllocation:
    """What a request has of the buffers: the numbers of its windows and of its slots."""

    buffers: KVBuffers
    windows: Int32Array
    slots: Int32Array


class KVAllocator(Protocol):
    """Gives requests their windows and slots."""

    def allocate(self, frames: int, windows: int, slots: int) -> KVAllocation:
        """So many windows of `frames` encoder states, and slots for so many hypotheses."""

    def free(self, allocation: KVAllocation) -> None:
        """Takes them back."""


class PrivateKVAllocator:
    """Buffers for each request, from memory that earlier ones have left."""

    def __init__(self, layout: KVLayout) -> None:
        self._layout = layout
        self._cross_kv_pool = BufferPool(layout.device)
        self._kv_cache_pool = BufferPool(layout.device)

    def allocate(self, frames: int, windows: int, slots: int) -> KVAllocation:
        """Buffers of its own; their memory is lent again when they are collected."""
        buffers = KVBuffers()
        cross_kv, kv_cache = self._layout.cross_kv(frames, windows), self._layout.kv_cache(slots)
        buffers.cross_kv = self._cross_kv_pool.lend(buffers, *cross_kv)
        buffers.kv_cache = self._kv_cache_pool.lend(buffers, *kv_cache)
        return KVAllocation(
            buffers, np.arange(windows, dtype=np.int32), np.arange(slots, dtype=np.int32)
        )

    def free(self, allocation: KVAllocation) -> None:
        """Nothing to do: see `allocate`."""


class _SharedKVBuffers(KVBuffers):
    """Buffers whose windows and slots are given out one by one."""

    def __init__(self) -> None:
        self.recently_taken: deque[tuple[int, int]] = deque(maxlen=_REMEMBERED)
        self.clear()

    def clear(self) -> None:
        """Lets go of the memory."""
        self.__dict__.pop("cross_kv", None)
        self.__dict__.pop("kv_cache", None)
        self.free_windows = np.zeros(0, bool)
        self.free_slots = np.zeros(0, bool)

    @property
    def empty(self) -> bool:
        """Whether nobody has a window or slot."""
        return bool(self.free_windows.all() and self.free_slots.all())


class SharedKVAllocator:
    """The same buffers for all requests with windows of one length: a step can serve all of them.

    They are as large as one request needs, until several are there at once: then they double, and
    stay so long after, because a device captures its steps with the buffers that they use. Where
    the device has no memory for that, requests wait until others are done.
    """

    def __init__(self, layout: KVLayout, turn: Condition) -> None:
        """Start without any buffers.

        Args:
            layout: Of the buffers.
            turn: Held by whoever uses the device, and by the callers of `allocate` and `free`. A
                request that waits lets go of it.
        """
        self._layout = layout
        self._turn = turn
        self._by_frames: dict[int, _SharedKVBuffers] = {}

    def allocate(self, frames: int, windows: int, slots: int) -> KVAllocation:
        """Windows and slots; waits while there are too few and the buffers cannot grow.

        Raises:
            RuntimeError: Nobody else has any that could be waited for.
        """
        while True:
            buffers = self._by_frames.setdefault(frames, _SharedKVBuffers())
            free_windows, free_slots = buffers.free_windows, buffers.free_slots
            taken = (
                len(free_windows) - int(free_windows.sum()) + windows,
                len(free_slots) - int(free_slots.sum()) + slots,
            )
            most_windows, most_slots = map(max, zip(taken, *buffers.recently_taken, strict=True))
            oversized = buffers.empty and len(free_windows) > 2 * most_windows
            fits = windows <= free_windows.sum() and slots <= free_slots.sum()
            if fits and not oversized:
                buffers.recently_taken.append(taken)
                return KVAllocation(
                    buffers, _taken(free_windows, windows), _taken(free_slots, slots)
                )
            try:
                if buffers.empty:
                    self._renew(buffers, frames, most_windows, most_slots)
                else:
                    self._enlarge(buffers, frames, windows, slots)
            except Exception as error:  # MAX has no error of its own for a lack of memory
                if (most_windows, most_slots) != taken:
                    buffers.recently_taken.clear()
                    continue
                if all(other.empty for other in self._by_frames.values()):
                    raise self._layout.no_memory(frames, windows, slots) from error
                _log.info("a request waits until others are done: no memory for more (%s)", error)
                self._turn.wait()

    def free(self, allocation: KVAllocation) -> None:
        """Takes windows and slots back, for those that wait."""
        buffers = allocation.buffers
        assert isinstance(buffers, _SharedKVBuffers)
        buffers.free_windows[allocation.windows] = True
        buffers.free_slots[allocation.slots] = True
        self._turn.notify_all()

    def _renew(self, buffers: _SharedKVBuffers, frames: int, windows: int, slots: int) -> None:
        """Makes the buffers anew, which nobody uses."""
        self._forget_empty_but(buffers, frames)
        buffers.clear()  # the old memory may be needed for the new
        buffers.cross_kv = self._layout.new_cross_kv(frames, windows)
        buffers.kv_cache = self._layout.new_kv_cache(slots)
        buffers.free_windows, buffers.free_slots = np.ones(windows, bool), np.ones(slots, bool)

    def _enlarge(self, buffers: _SharedKVBuffers, frames: int, windows: int, slots: int) -> None:
        """Makes the buffers longer, where they are too short."""
        self._forget_empty_but(buffers, frames)
        if windows > buffers.free_windows.sum():
            free = _grown(buffers.free_windows, windows)
            cross_kv = self._layout.new_cross_kv(frames, len(free))
            _copy_beginning(buffers.cross_kv, cross_kv, 1)
            buffers.cross_kv, buffers.free_windows = cross_kv, free
        if slots > buffers.free_slots.sum():
            free = _grown(buffers.free_slots, slots)
            kv_cache = self._layout.new_kv_cache(len(free))
            _copy_beginning(buffers.kv_cache, kv_cache, self._layout.slot_axis)
            buffers.kv_cache, buffers.free_slots = kv_cache, free
        self._layout.device.synchronize()  # a copy in the CPU's memory is not done at its return

    def _forget_empty_but(self, buffers: _SharedKVBuffers, frames: int) -> None:
        """Lets go of the memory of other lengths."""
        self._by_frames = {k: b for k, b in self._by_frames.items() if not b.empty}
        self._by_frames[frames] = buffers


def _mib(buffer: BufferType) -> int:
    dtype, shape = buffer
    return -(-math.prod(shape) * int(dtype.size_in_bytes) // 2**20)


def _taken(free: np.ndarray, count: int) -> Int32Array:
    """The first free places, which are not free any more."""
    places = np.flatnonzero(free)[:count]
    free[places] = False
    return places.astype(np.int32)


def _copy_beginning(source: Buffer, target: Buffer, axis: int) -> None:
    """Copies `source` to the beginning of `target`, which is longer along an axis."""
    shape = [int(size) for size in source.shape]
    every = [slice(0, size) for size in shape[axis:]]
    for outer in np.ndindex(*shape[:axis]):
        place = (*outer, *every)
        target[place].inplace_copy_from(source[place])


def _grown(free: np.ndarray, count: int) -> np.ndarray:
    """Twice as many places, or as many as it takes to have `count` free ones."""
    more = max(len(free), count - int(free.sum()))
    return np.concatenate([free, np.ones(more, bool)])
