"""Where requests keep keys and values: those of their windows, and of what was said of them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from max.driver import Buffer, Device
from max.dtype import DType

from ...system.os_threads import Condition
from ..search.protocol import Int32Array
from .buffer_pool import BufferPool

_log = logging.getLogger("whisper_max_backend")

BufferType = tuple[DType, tuple[int, ...]]


@dataclass(frozen=True)
class Layout:
    """Types and shapes of the buffers, on a device.

    Attributes:
        device: Where they are.
        memory: Of frames and windows: cross-attention keys and values, ``[layers, windows, ...]``.
        cache: Of slots, one for each hypothesis: layers, 2 for keys and values, slots,
            n_text_ctx and width, in an order of the device's.
        slot_axis: Where the slots stand in that order.
    """

    device: Device
    memory: Callable[[int, int], BufferType]
    cache: Callable[[int], BufferType]
    slot_axis: int

    def new_memory(self, frames: int, windows: int) -> Buffer:
        """A buffer of undefined content for windows of so many frames."""
        dtype, shape = self.memory(frames, windows)
        return Buffer(dtype, shape, self.device)

    def new_cache(self, slots: int) -> Buffer:
        """A buffer of undefined content for hypotheses."""
        dtype, shape = self.cache(slots)
        return Buffer(dtype, shape, self.device)


class Room:
    """Buffers for the windows and hypotheses of one or several requests."""

    memory: Buffer
    cache: Buffer


@dataclass(eq=False)
class Part:
    """What a request has of a room: the numbers of its windows and of its slots."""

    room: Room
    windows: Int32Array
    slots: Int32Array

    @property
    def has_all_windows(self) -> bool:
        """Whether the room's memory is this request's alone."""
        return len(self.windows) == int(self.room.memory.shape[1])

    def keep(self, index: int, window: Buffer) -> None:
        """Copies the memory of one window, ``[layers, 1, ...]``, to where it belongs."""
        memory, place = self.room.memory, int(self.windows[index])
        for layer in range(memory.shape[0]):
            memory[layer, place, :, :].inplace_copy_from(window[layer, 0, :, :])
        memory.device.synchronize()  # a copy within the CPU's memory is not done when it returns


class Caches(Protocol):
    """Gives requests their parts."""

    def take(self, frames: int, windows: int, slots: int) -> Part:
        """A part for so many windows of `frames` encoder states, and so many hypotheses."""

    def give(self, part: Part) -> None:
        """Takes a part back."""


class PrivateCaches:
    """A room for each request, from buffers that earlier ones have left."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._memories = BufferPool(layout.device)
        self._caches = BufferPool(layout.device)

    def take(self, frames: int, windows: int, slots: int) -> Part:
        """A room of its own; its memory is lent again when it is collected."""
        room = Room()
        room.memory = self._memories.lend(room, *self._layout.memory(frames, windows))
        room.cache = self._caches.lend(room, *self._layout.cache(slots))
        return Part(room, np.arange(windows, dtype=np.int32), np.arange(slots, dtype=np.int32))

    def give(self, part: Part) -> None:
        """Nothing to do: see `take`."""


class _SharedRoom(Room):
    """A room whose places are given out one by one."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Lets go of the buffers."""
        self.__dict__.pop("memory", None)
        self.__dict__.pop("cache", None)
        self.free_windows = np.zeros(0, bool)
        self.free_slots = np.zeros(0, bool)

    @property
    def empty(self) -> bool:
        """Whether nobody has a part of it."""
        return bool(self.free_windows.all() and self.free_slots.all())


class SharedCaches:
    """One room for all requests with windows of the same length, so that a step can serve them.

    It is as large as one request needs, until several are there at once: then it doubles. Where
    the device has no memory for that, requests wait until others are done.
    """

    def __init__(self, layout: Layout, turn: Condition) -> None:
        """Start without any room.

        Args:
            layout: Of the buffers.
            turn: Held by whoever uses the device, and by the callers of `take` and `give`. A
                request that waits for room lets go of it.
        """
        self._layout = layout
        self._turn = turn
        self._rooms: dict[int, _SharedRoom] = {}

    def take(self, frames: int, windows: int, slots: int) -> Part:
        """A part of the room; waits while it is full and cannot grow.

        Raises:
            Exception: As the device raised it, where nobody else has a part that could be waited
                for.
        """
        while True:
            room = self._rooms.setdefault(frames, _SharedRoom())
            oversized = room.empty and len(room.free_windows) > 2 * windows
            fits = windows <= room.free_windows.sum() and slots <= room.free_slots.sum()
            if fits and not oversized:
                return Part(
                    room, _taken(room.free_windows, windows), _taken(room.free_slots, slots)
                )
            try:
                self._make_room(room, frames, windows, slots)
            except Exception as error:  # MAX has no error of its own for a lack of memory
                if all(other.empty for other in self._rooms.values()):
                    raise
                _log.info("a request waits until others are done: no memory for more (%s)", error)
                self._turn.wait()

    def give(self, part: Part) -> None:
        """Takes a part back, for those that wait."""
        room = part.room
        assert isinstance(room, _SharedRoom)
        room.free_windows[part.windows] = True
        room.free_slots[part.slots] = True
        self._turn.notify_all()

    def _make_room(self, room: _SharedRoom, frames: int, windows: int, slots: int) -> None:
        self._rooms = {k: r for k, r in self._rooms.items() if not r.empty}
        self._rooms[frames] = room
        if room.empty:
            room.clear()  # what it had makes room for what follows
            room.memory = self._layout.new_memory(frames, windows)
            room.cache = self._layout.new_cache(slots)
            room.free_windows, room.free_slots = np.ones(windows, bool), np.ones(slots, bool)
            return
        if windows > room.free_windows.sum():
            free = _grown(room.free_windows, windows)
            memory = self._layout.new_memory(frames, len(free))
            _copy_beginning(room.memory, memory, 1)
            room.memory, room.free_windows = memory, free
        if slots > room.free_slots.sum():
            free = _grown(room.free_slots, slots)
            cache = self._layout.new_cache(len(free))
            _copy_beginning(room.cache, cache, self._layout.slot_axis)
            room.cache, room.free_slots = cache, free
        self._layout.device.synchronize()  # see `Part.keep`


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
