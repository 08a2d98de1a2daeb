"""Calls of several threads that are run together."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from whisper_max_backend.engine.serving import batching as module
from whisper_max_backend.engine.serving.batching import Batcher

pytestmark = pytest.mark.timeout(60)


class Work:
    """Answers numbers with their squares; what was run together, and by whom, is remembered."""

    def __init__(self) -> None:
        self.runs: list[list[int]] = []
        self.threads: list[threading.Thread] = []
        self.open = threading.Event()
        self.open.set()
        self.started = threading.Event()

    def __call__(self, numbers: Sequence[int]) -> list[int]:
        self.runs.append(list(numbers))
        self.threads.append(threading.current_thread())
        self.started.set()
        assert self.open.wait(30)
        if any(number < 0 for number in numbers):
            raise ValueError(f"negative: {min(numbers)}")
        return [number * number for number in numbers]


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
def batcher(work: Work) -> Batcher[int, int]:
    return Batcher(work, kind=lambda number: number % 10 == 7)


def until_waiting(batcher: Batcher[int, int], count: int) -> None:
    deadline = time.monotonic() + 20
    while len(batcher._waiting) < count:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def start_held(
    work: Work, batcher: Batcher[int, int], pool: ThreadPoolExecutor, numbers: Sequence[int]
) -> list[Future[int]]:
    """One call is being worked on, the others wait, in this order."""
    work.open.clear()
    pending = [pool.submit(batcher.call, 1)]
    assert work.started.wait(20)
    for count, number in enumerate(numbers, start=1):
        pending.append(pool.submit(batcher.call, number))
        until_waiting(batcher, count)
    return pending


def test_a_lone_call_runs_in_its_own_thread(work: Work, batcher: Batcher[int, int]) -> None:
    assert [batcher.call(3), batcher.call(4)] == [9, 16]
    assert work.runs == [[3], [4]]
    assert set(work.threads) == {threading.current_thread()}


def test_what_waits_is_run_together(work: Work, batcher: Batcher[int, int]) -> None:
    with ThreadPoolExecutor(4) as pool:
        pending = start_held(work, batcher, pool, [2, 3, 4])
        work.open.set()
        assert [one.result(20) for one in pending] == [1, 4, 9, 16]
    assert work.runs == [[1], [2, 3, 4]]


def test_kinds_take_turns(work: Work, batcher: Batcher[int, int]) -> None:
    with ThreadPoolExecutor(6) as pool:
        pending = start_held(work, batcher, pool, [2, 7, 3, 17])
        work.open.set()
        assert [one.result(20) for one in pending] == [1, 4, 49, 9, 289]
    assert work.runs == [[1], [2, 3], [7, 17]]


def test_an_error_is_its_own_callers(work: Work, batcher: Batcher[int, int]) -> None:
    with ThreadPoolExecutor(4) as pool:
        pending = start_held(work, batcher, pool, [2, -5, 4])
        work.open.set()
        assert [pending[i].result(20) for i in (0, 1, 3)] == [1, 4, 16]
        with pytest.raises(ValueError, match="negative: -5"):
            pending[2].result(20)
    assert work.runs == [[1], [2, -5, 4], [2], [-5], [4]]


def test_those_that_joined_are_waited_for(
    work: Work, batcher: Batcher[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 20)
    for _ in range(3):
        batcher.join()
    with ThreadPoolExecutor(3) as pool:
        pending = [pool.submit(batcher.call, number) for number in (1, 2)]
        until_waiting(batcher, 2)
        time.sleep(0.02)
        assert work.runs == []
        pending.append(pool.submit(batcher.call, 3))
        assert [one.result(20) for one in pending] == [1, 4, 9]
    assert [sorted(run) for run in work.runs] == [[1, 2, 3]]


def test_the_others_go_on_without_one_that_takes_too_long(
    work: Work, batcher: Batcher[int, int]
) -> None:
    """And it is waited for again, when it comes back."""
    for _ in range(3):
        batcher.join()
    with ThreadPoolExecutor(3) as pool:
        pending = [pool.submit(batcher.call, number) for number in (1, 2)]
        assert [one.result(20) for one in pending] == [1, 4]
        pending = [pool.submit(batcher.call, number) for number in (3, 4, 5)]
        assert [one.result(20) for one in pending] == [9, 16, 25]
    assert [sorted(run) for run in work.runs] == [[1, 2], [3, 4, 5]]


def test_those_that_leave_are_not(work: Work, batcher: Batcher[int, int]) -> None:
    for _ in range(3):
        batcher.join()
    with ThreadPoolExecutor(2) as pool:
        pending = [pool.submit(batcher.call, number) for number in (1, 2)]
        until_waiting(batcher, 2)
        batcher.leave()
        assert [one.result(20) for one in pending] == [1, 4]
    assert [sorted(run) for run in work.runs] == [[1, 2]]


def test_an_interrupted_worker_leaves_nobody_waiting() -> None:
    """Whoever else waited for the interrupted work is told; what comes later is done."""
    entered, interrupt = threading.Event(), threading.Event()

    def run(numbers: Sequence[int]) -> list[int]:
        if 1 in numbers:
            entered.set()
            assert interrupt.wait(20)
        if len(numbers) > 1:
            raise KeyboardInterrupt
        return list(numbers)

    batcher: Batcher[int, int] = Batcher(run, kind=lambda _: None)
    with ThreadPoolExecutor(3) as pool:
        pending = [pool.submit(batcher.call, 1)]
        assert entered.wait(20)
        for number in (2, 3):
            pending.append(pool.submit(batcher.call, number))
            until_waiting(batcher, number - 1)
        interrupt.set()
        assert pending[0].result(20) == 1
        errors = [one.exception(20) for one in pending[1:]]
    assert {type(error) for error in errors} == {KeyboardInterrupt, RuntimeError}
    assert batcher.call(4) == 4


def test_many_threads(work: Work, batcher: Batcher[int, int]) -> None:
    """They join, call, fail and leave as they like; each gets its own answers."""

    def life(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(5):
            batcher.join()
            try:
                for _ in range(chance.randrange(12)):
                    number = chance.randrange(-20, 200)
                    if chance.random() < 0.1:
                        time.sleep(0.001)
                    if number >= 0:
                        assert batcher.call(number) == number * number
                        continue
                    with pytest.raises(ValueError, match=str(number)):
                        batcher.call(number)
            finally:
                batcher.leave()

    with ThreadPoolExecutor(12) as pool:
        outcomes: list[Any] = [pool.submit(life, seed) for seed in range(24)]
        for outcome in outcomes:
            outcome.result(50)
    assert max(map(len, work.runs)) > 3
    assert batcher._waiting == []
