"""Rooms for keys and values, which requests share."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest
from max.driver import CPU, Buffer
from max.dtype import DType

from whisper_max_backend.engine.state.kv_cache import Layout, Part, PrivateCaches, SharedCaches

pytestmark = pytest.mark.timeout(60)

FRAMES = 3
LAYERS, CONTEXT, WIDTH = 3, 4, 5


class Memory:
    """What a device has: so many windows and slots at once, by the sizes that were asked for."""

    def __init__(self, slot_axis: int) -> None:
        self.slot_axis = slot_axis
        self.most_windows = self.most_slots = 1000
        self.asked: list[tuple[str, int]] = []

    def memory(self, frames: int, windows: int) -> tuple[DType, tuple[int, ...]]:
        self.asked.append(("windows", windows))
        if windows > self.most_windows:
            raise RuntimeError("out of memory")
        return DType.int32, (LAYERS, windows, frames, WIDTH)

    def cache(self, slots: int) -> tuple[DType, tuple[int, ...]]:
        self.asked.append(("slots", slots))
        if slots > self.most_slots:
            raise RuntimeError("out of memory")
        shape = [LAYERS, 2, CONTEXT, WIDTH]
        shape.insert(self.slot_axis, slots)
        return DType.float32, tuple(shape)


@pytest.fixture(params=[0, 2])
def memory(request: pytest.FixtureRequest) -> Memory:
    return Memory(request.param)


@pytest.fixture
def layout(memory: Memory) -> Layout:
    return Layout(CPU(), memory.memory, memory.cache, memory.slot_axis)


@pytest.fixture
def turn() -> Iterator[threading.Condition]:
    condition = threading.Condition()
    with condition:
        yield condition


@pytest.fixture
def caches(layout: Layout, turn: threading.Condition) -> SharedCaches:
    return SharedCaches(layout, turn)  # type: ignore[arg-type]  # it does what is asked of one


def by_slot(cache: Buffer) -> np.ndarray:
    """The cache, slots first."""
    return np.moveaxis(cache.to_numpy(), 0 if cache.shape[1] == LAYERS else 2, 0)


def fill(part: Part, value: float) -> None:
    part.room.memory.to_numpy()[:, part.windows] = value
    by_slot(part.room.cache)[part.slots] = value


def address(buffer: Buffer) -> int:
    return int(buffer.to_numpy().ctypes.data)


def holds(part: Part, value: float) -> bool:
    windows = part.room.memory.to_numpy()[:, part.windows]
    slots = by_slot(part.room.cache)[part.slots]
    return bool((windows == value).all() and (slots == value).all())


def test_one_request_gets_what_it_needs(memory: Memory, caches: SharedCaches) -> None:
    """The next one of the same size gets the same buffers."""
    first = caches.take(FRAMES, 2, 10)
    assert first.has_all_windows
    assert first.windows.tolist() == [0, 1]
    assert first.slots.tolist() == list(range(10))
    buffers = first.room.memory, first.room.cache
    caches.give(first)
    second = caches.take(FRAMES, 2, 10)
    assert (second.room.memory, second.room.cache) == buffers
    assert memory.asked == [("windows", 2), ("slots", 10)]


def test_a_room_grows_and_keeps_what_it_holds(memory: Memory, caches: SharedCaches) -> None:
    parts = []
    for value in range(9):
        parts.append(caches.take(FRAMES, 1, 5))
        fill(parts[-1], value)
    assert all(part.room is parts[0].room for part in parts)
    assert all(holds(part, value) for value, part in enumerate(parts))
    assert not parts[0].has_all_windows
    assert len({int(slot) for part in parts for slot in part.slots}) == 45
    assert [count for kind, count in memory.asked if kind == "windows"] == [1, 2, 4, 8, 16]


def test_what_was_given_back_is_given_again(caches: SharedCaches) -> None:
    parts = [caches.take(FRAMES, 1, 5) for _ in range(4)]
    caches.give(parts[1])
    caches.give(parts[2])
    again = caches.take(FRAMES, 2, 10)
    assert again.windows.tolist() == [1, 2]
    assert again.slots.tolist() == list(range(5, 15))


def test_one_that_needs_more_than_double(caches: SharedCaches) -> None:
    first = caches.take(FRAMES, 1, 5)
    fill(first, 1)
    second = caches.take(FRAMES, 7, 35)
    assert first.room.memory.shape[1] == 8
    assert len(by_slot(first.room.cache)) == 40
    fill(second, 2)
    assert holds(first, 1)


def test_an_oversized_room_is_made_anew_when_it_is_empty(caches: SharedCaches) -> None:
    parts = [caches.take(FRAMES, 1, 5) for _ in range(8)]
    for part in parts[:-1]:
        caches.give(part)
    late = caches.take(FRAMES, 1, 5)
    assert late.room.memory.shape[1] == 8
    for part in (late, parts[-1]):
        caches.give(part)
    assert caches.take(FRAMES, 1, 5).room.memory.shape[1] == 1


def test_windows_of_another_length_have_their_room(caches: SharedCaches) -> None:
    """It is let go of when it is empty and another is made."""
    long, short = caches.take(FRAMES, 1, 5), caches.take(2, 1, 5)
    assert long.room is not short.room
    assert short.room.memory.shape[2] == 2
    caches.give(short)
    caches.take(FRAMES, 1, 5)  # grows
    assert set(caches._rooms) == {FRAMES}


def test_without_memory_a_request_waits(
    memory: Memory, caches: SharedCaches, turn: threading.Condition
) -> None:
    """Until another is done; who needs less than is free need not wait."""
    memory.most_windows = 2
    parts = [caches.take(FRAMES, 1, 5) for _ in range(2)]
    waiting, found = threading.Event(), []

    def take() -> None:
        with turn:
            waiting.set()
            found.append(caches.take(FRAMES, 1, 5))

    thread = threading.Thread(target=take)
    thread.start()
    turn.wait_for(waiting.is_set, timeout=0.1)  # lets go of the turn, so that it can begin
    turn.wait(0.05)
    assert found == []
    fill(parts[0], 7)
    caches.give(parts[1])
    turn.release()
    thread.join(20)
    turn.acquire()
    assert found[0].windows.tolist() == parts[1].windows.tolist()
    assert holds(parts[0], 7)


def test_without_memory_and_nobody_to_wait_for(memory: Memory, caches: SharedCaches) -> None:
    memory.most_slots = 4
    for _ in range(2):
        with pytest.raises(RuntimeError, match="out of memory"):
            caches.take(FRAMES, 1, 5)
    assert caches.take(FRAMES, 1, 4).has_all_windows


def test_a_window_is_put_in_its_place(caches: SharedCaches, layout: Layout) -> None:
    others = caches.take(FRAMES, 2, 2)
    fill(others, -1)
    part = caches.take(FRAMES, 2, 2)
    for index in range(2):
        window = layout.new_memory(FRAMES, 1)
        window.to_numpy()[:] = np.arange(LAYERS * FRAMES * WIDTH).reshape(window.shape) + index
        part.keep(index, window)
        kept = part.room.memory.to_numpy()[:, part.windows[index]]
        np.testing.assert_array_equal(kept, window.to_numpy()[:, 0])
    assert holds(others, -1)


def test_private_rooms(layout: Layout) -> None:
    """Each request has its own; the next gets the buffers that one leaves."""
    caches = PrivateCaches(layout)
    first, second = caches.take(FRAMES, 1, 5), caches.take(FRAMES, 1, 5)
    assert first.room is not second.room
    assert first.has_all_windows
    memory, cache = address(first.room.memory), address(first.room.cache)
    caches.give(first)
    del first
    third = caches.take(FRAMES, 1, 5)
    assert address(third.room.memory) == memory
    assert address(third.room.cache) == cache
