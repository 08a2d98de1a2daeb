"""Buffers for keys and values, which requests share."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from max.driver import CPU, Buffer
from max.dtype import DType

from whisper_max_backend.engine.state import kv_cache as module
from whisper_max_backend.engine.state.kv_cache import (
    KVAllocation,
    KVLayout,
    PrivateKVAllocator,
    SharedKVAllocator,
)

pytestmark = pytest.mark.timeout(60)

FRAMES = 3
LAYERS, CONTEXT, WIDTH = 3, 4, 5


class Memory:
    """What a device has: so many windows and slots at once, by the sizes that were asked for."""

    def __init__(self, slot_axis: int) -> None:
        self.slot_axis = slot_axis
        self.most_windows = self.most_slots = 1000
        self.asked: list[tuple[str, int]] = []

    def cross_kv(self, frames: int, windows: int) -> tuple[DType, tuple[int, ...]]:
        return DType.int32, (LAYERS, windows, frames, WIDTH)

    def kv_cache(self, slots: int) -> tuple[DType, tuple[int, ...]]:
        shape = [LAYERS, 2, CONTEXT, WIDTH]
        shape.insert(self.slot_axis, slots)
        return DType.float32, tuple(shape)


@dataclass(frozen=True)
class LimitedLayout(KVLayout):
    """On a device that has no more than a memory."""

    memory: Memory

    def new_cross_kv(self, frames: int, windows: int) -> Buffer:
        self.memory.asked.append(("windows", windows))
        if windows > self.memory.most_windows:
            raise RuntimeError("out of memory")
        return super().new_cross_kv(frames, windows)

    def new_kv_cache(self, slots: int) -> Buffer:
        self.memory.asked.append(("slots", slots))
        if slots > self.memory.most_slots:
            raise RuntimeError("out of memory")
        return super().new_kv_cache(slots)


@pytest.fixture(params=[0, 2])
def memory(request: pytest.FixtureRequest) -> Memory:
    return Memory(request.param)


@pytest.fixture
def layout(memory: Memory) -> KVLayout:
    return LimitedLayout(CPU(), memory.cross_kv, memory.kv_cache, memory.slot_axis, memory)


@pytest.fixture
def turn() -> Iterator[threading.Condition]:
    condition = threading.Condition()
    with condition:
        yield condition


@pytest.fixture
def allocator(layout: KVLayout, turn: threading.Condition) -> SharedKVAllocator:
    return SharedKVAllocator(layout, turn)  # type: ignore[arg-type]  # has its methods


def by_slot(kv_cache: Buffer) -> np.ndarray:
    """The cache, slots first."""
    return np.moveaxis(kv_cache.to_numpy(), 0 if kv_cache.shape[1] == LAYERS else 2, 0)


def has_all_windows(allocation: KVAllocation) -> bool:
    return len(allocation.windows) == allocation.buffers.cross_kv.shape[1]


def fill(allocation: KVAllocation, value: float) -> None:
    allocation.buffers.cross_kv.to_numpy()[:, allocation.windows] = value
    by_slot(allocation.buffers.kv_cache)[allocation.slots] = value


def address(buffer: Buffer) -> int:
    return int(buffer.to_numpy().ctypes.data)


def holds(allocation: KVAllocation, value: float) -> bool:
    windows = allocation.buffers.cross_kv.to_numpy()[:, allocation.windows]
    slots = by_slot(allocation.buffers.kv_cache)[allocation.slots]
    return bool((windows == value).all() and (slots == value).all())


def test_one_request_gets_what_it_needs(memory: Memory, allocator: SharedKVAllocator) -> None:
    """The next one of the same size gets the same buffers."""
    first = allocator.allocate(FRAMES, 2, 10)
    assert has_all_windows(first)
    assert first.windows.tolist() == [0, 1]
    assert first.slots.tolist() == list(range(10))
    buffers = first.buffers.cross_kv, first.buffers.kv_cache
    allocator.free(first)
    second = allocator.allocate(FRAMES, 2, 10)
    assert (second.buffers.cross_kv, second.buffers.kv_cache) == buffers
    assert memory.asked == [("windows", 2), ("slots", 10)]


def test_buffers_grow_and_keep_what_they_hold(memory: Memory, allocator: SharedKVAllocator) -> None:
    allocations = []
    for value in range(9):
        allocations.append(allocator.allocate(FRAMES, 1, 5))
        fill(allocations[-1], value)
    assert all(allocation.buffers is allocations[0].buffers for allocation in allocations)
    assert all(holds(allocation, value) for value, allocation in enumerate(allocations))
    assert not has_all_windows(allocations[0])
    assert len({int(slot) for allocation in allocations for slot in allocation.slots}) == 45
    assert [count for kind, count in memory.asked if kind == "windows"] == [1, 2, 4, 8, 16]


def test_what_was_given_back_is_given_again(allocator: SharedKVAllocator) -> None:
    allocations = [allocator.allocate(FRAMES, 1, 5) for _ in range(4)]
    allocator.free(allocations[1])
    allocator.free(allocations[2])
    again = allocator.allocate(FRAMES, 2, 10)
    assert again.windows.tolist() == [1, 2]
    assert again.slots.tolist() == list(range(5, 15))


def test_one_that_needs_more_than_double(allocator: SharedKVAllocator) -> None:
    first = allocator.allocate(FRAMES, 1, 5)
    fill(first, 1)
    second = allocator.allocate(FRAMES, 7, 35)
    assert first.buffers.cross_kv.shape[1] == 8
    assert len(by_slot(first.buffers.kv_cache)) == 40
    fill(second, 2)
    assert holds(first, 1)


def test_buffers_stay_as_they_are_long_after_many_needed_them(
    memory: Memory, allocator: SharedKVAllocator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_REMEMBERED", 3)
    allocations = [allocator.allocate(FRAMES, 1, 5) for _ in range(8)]
    buffers = allocations[0].buffers.cross_kv, allocations[0].buffers.kv_cache
    for allocation in allocations:
        allocator.free(allocation)
    for _ in range(2):
        late = allocator.allocate(FRAMES, 1, 5)
        assert (late.buffers.cross_kv, late.buffers.kv_cache) == buffers
        allocator.free(late)
    allocator.free(allocator.allocate(FRAMES, 1, 5))
    assert allocator.allocate(FRAMES, 1, 5).buffers.cross_kv.shape[1] == 1


def test_buffers_that_are_made_anew_have_room_for_as_many_as_before(
    memory: Memory, allocator: SharedKVAllocator
) -> None:
    """Wider beams need other buffers; the windows of the callers before still fit."""
    for allocation in [allocator.allocate(FRAMES, 1, 1) for _ in range(4)]:
        allocator.free(allocation)
    wide = allocator.allocate(FRAMES, 1, 6)
    assert (wide.buffers.cross_kv.shape[1], len(by_slot(wide.buffers.kv_cache))) == (4, 6)


def test_room_for_as_many_as_before_is_no_reason_to_fail(
    memory: Memory, allocator: SharedKVAllocator
) -> None:
    for allocation in [allocator.allocate(FRAMES, 1, 1) for _ in range(4)]:
        allocator.free(allocation)
    memory.most_windows = 1
    assert has_all_windows(allocator.allocate(FRAMES, 1, 6))


def test_windows_of_another_length_have_their_buffers(allocator: SharedKVAllocator) -> None:
    """They are let go of when they are empty and others are made."""
    long, short = allocator.allocate(FRAMES, 1, 5), allocator.allocate(2, 1, 5)
    assert long.buffers is not short.buffers
    assert short.buffers.cross_kv.shape[2] == 2
    allocator.free(short)
    allocator.allocate(FRAMES, 1, 5)  # grows
    assert set(allocator._by_frames) == {FRAMES}


def test_without_memory_a_request_waits(
    memory: Memory, allocator: SharedKVAllocator, turn: threading.Condition
) -> None:
    """Until another is done; who needs less than is free need not wait."""
    memory.most_windows = 2
    allocations = [allocator.allocate(FRAMES, 1, 5) for _ in range(2)]
    waiting, found = threading.Event(), []

    def take() -> None:
        with turn:
            waiting.set()
            found.append(allocator.allocate(FRAMES, 1, 5))

    thread = threading.Thread(target=take)
    thread.start()
    turn.wait_for(waiting.is_set, timeout=0.1)  # lets go of the turn, so that it can begin
    turn.wait(0.05)
    assert found == []
    fill(allocations[0], 7)
    allocator.free(allocations[1])
    turn.release()
    thread.join(20)
    turn.acquire()
    assert found[0].windows.tolist() == allocations[1].windows.tolist()
    assert holds(allocations[0], 7)


def test_without_memory_and_nobody_to_wait_for(
    memory: Memory, allocator: SharedKVAllocator
) -> None:
    memory.most_slots = 4
    for _ in range(2):
        with pytest.raises(RuntimeError) as error:
            allocator.allocate(FRAMES, 1, 5)
        assert "no memory for a request of 1 windows and 5 hypotheses" in str(error.value)
        assert str(error.value.__cause__) == "out of memory"
    assert has_all_windows(allocator.allocate(FRAMES, 1, 4))


def test_the_error_says_how_much_was_asked_for(memory: Memory) -> None:
    def shape(count: int) -> tuple[DType, tuple[int, ...]]:
        return DType.float32, (count, 1 << 18)  # a MiB each

    layout = LimitedLayout(CPU(), lambda _, windows: shape(windows), shape, 0, memory)
    told = str(layout.no_memory(FRAMES, 7, 35))
    assert "needs 7 MiB for the keys and values of cross-attention and 35 MiB" in told


def test_private_buffers(layout: KVLayout) -> None:
    """Each request has its own; the next gets the buffers that one leaves."""
    allocator = PrivateKVAllocator(layout)
    first, second = allocator.allocate(FRAMES, 1, 5), allocator.allocate(FRAMES, 1, 5)
    assert first.buffers is not second.buffers
    assert has_all_windows(first)
    cross_kv, kv_cache = address(first.buffers.cross_kv), address(first.buffers.kv_cache)
    allocator.free(first)
    del first
    third = allocator.allocate(FRAMES, 1, 5)
    assert address(third.buffers.cross_kv) == cross_kv
    assert address(third.buffers.kv_cache) == kv_cache
