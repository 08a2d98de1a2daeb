"""Workers: how many requests run, wait and are counted, and which model they get."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

import pytest

from whisper_max_backend.engine.workers import Workers

pytestmark = pytest.mark.timeout(60)


class Held:
    """Requests that run until they are let go of; the models that they got."""

    def __init__(self) -> None:
        self.models: list[str] = []
        self.open = threading.Event()

    def __call__(self, model: str) -> str:
        self.models.append(model)
        assert self.open.wait(30)
        return model


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.mark.parametrize("at_once", [1, 3])
def test_a_worker_runs_several_requests(at_once: int) -> None:
    """Those that run are active, not queued; the next one waits."""
    workers = Workers(["model"], requests_at_once=at_once)
    held = Held()
    pending: list[Future[str]] = [workers.post(held) for _ in range(at_once)]
    until(lambda: len(held.models) == at_once)
    assert (workers.count, workers.active, workers.queued) == (1, at_once, 0)
    pending.append(workers.post(held))
    time.sleep(0.02)
    assert len(held.models) == at_once
    assert (workers.count, workers.active, workers.queued) == (1, at_once + 1, 1)
    assert not workers.detach()
    held.open.set()
    assert [one.result(20) for one in pending] == ["model"] * (at_once + 1)
    until(lambda: workers.active == 0)
    assert workers.detach()


def test_the_queue_is_as_long_as_ever() -> None:
    """Four requests a worker may wait, however many it runs at once."""
    workers = Workers(["model"], requests_at_once=2)
    held = Held()
    for _ in range(2):
        workers.post(held)
    until(lambda: len(held.models) == 2)
    for _ in range(4):
        workers.post(held)
    assert workers.queued == 4
    late = threading.Thread(target=workers.post, args=[held])
    late.start()
    until(lambda: workers.active == 7)
    time.sleep(0.02)
    assert late.is_alive()
    held.open.set()
    late.join(20)
    assert not late.is_alive()
    until(lambda: workers.active == 0)


def test_requests_are_spread_over_the_models() -> None:
    """Every model has one before any has two."""
    workers = Workers(["first", "second"], requests_at_once=2)
    held = Held()
    for count in range(1, 5):
        workers.post(held)
        until(lambda count=count: len(held.models) == count)  # type: ignore[misc]
    assert sorted(held.models[:2]) == ["first", "second"]
    assert sorted(held.models) == ["first", "first", "second", "second"]
    held.open.set()


def test_an_error_frees_its_place() -> None:
    workers = Workers(["model"])

    def fail(model: str) -> None:
        raise OSError(model)

    for _ in range(3):
        with pytest.raises(OSError, match="model"):
            workers.post(fail).result(20)
    assert workers.post(lambda model: model).result(20) == "model"
