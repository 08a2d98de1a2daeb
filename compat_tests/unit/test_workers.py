"""Workers: how many requests run, wait and are counted, and which model they get."""

from __future__ import annotations

import contextlib
import functools
import gc
import signal
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from compat_tests.support.waiting import until
from whisper_max_backend.engine.serving.workers import RequestFuture, Workers
from whisper_max_backend.system.cancellation import Cancelled, CancelToken, StopFlag
from whisper_max_backend.system.unpatched_threads import thread_ids

pytestmark = pytest.mark.timeout(60)


class Held:
    """Requests that run until they are let go of; the models that they got."""

    def __init__(self) -> None:
        self.models: list[str] = []
        self.open = threading.Event()

    def __call__(self, model: str, stop: StopFlag) -> str:
        self.models.append(model)
        assert self.open.wait(30)
        return model


def endless(model: str, stop: StopFlag) -> str:
    """A request that runs until it is stopped."""
    while True:
        time.sleep(0.001)
        stop.check()


@pytest.mark.parametrize("at_once", [1, 3])
def test_a_worker_runs_several_requests(at_once: int) -> None:
    """Those that run are active, not queued; the next one waits."""
    workers = Workers(["model"], requests_at_once=at_once)
    held = Held()
    pending: list[RequestFuture[str]] = [workers.post(held) for _ in range(at_once)]
    until(lambda: len(held.models) == at_once)
    assert (workers.count, workers.active, workers.queued) == (1, at_once, 0)
    pending.append(workers.post(held))
    time.sleep(0.02)
    assert len(held.models) == at_once
    assert (workers.count, workers.active, workers.queued) == (1, at_once + 1, 1)
    assert not workers.detach()
    held.open.set()
    assert [one.result() for one in pending] == ["model"] * (at_once + 1)
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

    def fail(model: str, stop: StopFlag) -> None:
        raise OSError(model)

    for _ in range(3):
        with pytest.raises(OSError, match="model"):
            workers.post(fail).result()
    assert workers.post(lambda model, _: model).result() == "model"


def interrupted(
    workers: Workers[str],
    request: Callable[[str, StopFlag], str],
    begun: threading.Event | None = None,
) -> None:
    """Runs a request in the main thread, and Ctrl-C is pressed when it has begun, or is there."""
    before = workers.active

    def press() -> None:
        until(lambda: workers.active > before if begun is None else begun.is_set())
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    pressing = threading.Thread(target=press)
    pressing.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            workers.run(request)
    finally:
        pressing.join(20)


def test_an_interrupt_waits_for_the_request_that_runs() -> None:
    workers = Workers(["model"])
    ended: list[str] = []
    begun = threading.Event()

    def request(model: str, stop: StopFlag) -> str:
        begun.set()
        time.sleep(0.2)  # it goes on after the interrupt
        ended.append(model)
        return model

    interrupted(workers, request, begun)
    assert ended == ["model"]
    assert (workers.active, workers.queued) == (0, 0)
    assert workers.detach()


def test_an_interrupt_takes_a_request_from_the_queue() -> None:
    workers = Workers(["model"])
    held = Held()
    running = workers.post(held)
    until(lambda: len(held.models) == 1)
    interrupted(workers, held)
    assert (workers.active, workers.queued) == (1, 0)
    held.open.set()
    assert running.result() == "model"
    assert workers.run(lambda model, _: model) == "model"
    assert held.models == ["model"], "what was dropped is not run"
    assert workers.detach()


def test_an_interrupt_of_a_thread_that_waits_for_room() -> None:
    workers = Workers(["model"], max_queued=1)
    held = Held()
    posted = [workers.post(held)]
    until(lambda: len(held.models) == 1)
    posted.append(workers.post(held))
    interrupted(workers, held)
    assert (workers.active, workers.queued) == (2, 1)
    held.open.set()
    assert [one.result() for one in posted] == ["model"] * 2


def test_a_token_stops_what_runs_and_what_waits() -> None:
    """The others go on."""
    workers = Workers(["model"])
    held = Held()

    token = CancelToken()

    def with_token(work: Callable[[str, StopFlag], str]) -> str:
        with token.applied():
            return workers.run(work)

    with ThreadPoolExecutor(2) as threads:
        running = threads.submit(with_token, endless)
        until(lambda: workers.active == 1)
        waiting = threads.submit(with_token, held)
        until(lambda: workers.queued == 1)
        other = workers.post(held)
        token.cancel()
        for stopped in (running, waiting):
            with pytest.raises(Cancelled):
                stopped.result(20)
    held.open.set()
    assert other.result() == "model"
    assert held.models == ["model"]
    with pytest.raises(Cancelled), token.applied():
        pass
    until(lambda: workers.active == 0)


def test_a_token_stops_one_that_waits_for_room() -> None:
    workers = Workers(["model"], max_queued=1)
    held = Held()
    posted = [workers.post(held) for _ in range(2)]
    token = CancelToken()
    threading.Timer(0.05, token.cancel).start()
    with pytest.raises(Cancelled), token.applied():
        workers.run(held)
    held.open.set()
    assert [one.result() for one in posted] == ["model"] * 2


def test_a_deadline_stops_what_runs_and_what_waits() -> None:
    workers = Workers(["model"])
    held = Held()

    def until_late(work: Callable[[str, StopFlag], str], seconds: float) -> str:
        with CancelToken(timeout=seconds).applied():
            return workers.run(work)

    with ThreadPoolExecutor(2) as threads:
        running = threads.submit(until_late, endless, 0.2)
        until(lambda: workers.active == 1)
        waiting = threads.submit(until_late, held, 0.1)
        with pytest.raises(Cancelled, match=r"not done within 0\.1 seconds"):
            waiting.result(20)
        with pytest.raises(Cancelled, match=r"not done within 0\.2 seconds"):
            running.result(20)
    assert held.models == []
    until(lambda: workers.active == 0)


def test_a_deadline_that_is_over() -> None:
    token = CancelToken(timeout=0)
    until(lambda: token.cancelled)
    with pytest.raises(Cancelled, match="within 0 seconds"), token.applied():
        pass


def test_whoever_cancels_first_says_why() -> None:
    token = CancelToken(timeout=0.05)
    token.cancel()
    time.sleep(0.1)
    with pytest.raises(Cancelled, match="was cancelled"), token.applied():
        pass


def test_a_deadline_costs_nothing_once_its_token_is_gone() -> None:
    before = thread_ids()
    tokens = [CancelToken(timeout=1e9) for _ in range(5)]
    until(lambda: len(thread_ids() - before) == 5)
    tokens.clear()
    until(lambda: not thread_ids() - before)


@pytest.mark.parametrize("timeout", [-1, float("nan")])
def test_deadlines_that_are_none(timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout must be a number"):
        CancelToken(timeout=timeout)


def test_an_interrupt_stops_a_request() -> None:
    """It ends at once, and its caller gets the interrupt."""
    workers = Workers(["model"])

    interrupted(workers, endless)
    assert workers.active == 0


def test_no_more_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the interpreter's end a model can be loaded, but no thread started."""

    def refuse(run: Callable[[], None]) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr("whisper_max_backend.engine.serving.workers.start_thread", refuse)
    workers = Workers(["model"])
    assert workers.run(lambda model, _: model) == "model"
    assert workers.post(lambda model, _: 2 * model).result() == "modelmodel"
    with pytest.raises(ZeroDivisionError):
        workers.run(lambda model, _: 1 // 0)
    assert (workers.active, workers.queued) == (0, 0)


def test_a_result_may_be_asked_for_by_several() -> None:
    workers = Workers(["model"])
    held = Held()
    posted = workers.post(held)
    assert not posted.done()
    with ThreadPoolExecutor(3) as threads:
        results = [threads.submit(posted.result) for _ in range(3)]
        held.open.set()
        assert [result.result(20) for result in results] == ["model"] * 3
    assert posted.done()
    assert posted.result() == "model"


def test_an_error_keeps_nothing_alive() -> None:
    """What a request was about is freed with its error, not when garbage is collected."""
    workers = Workers(["model"])
    gc.disable()
    try:
        features = Held()
        seen = weakref.ref(features)

        def fail(model: str, stop: StopFlag, features: Held) -> None:
            raise ValueError(model)

        with contextlib.suppress(ValueError):  # pytest.raises would keep the error
            workers.run(functools.partial(fail, features=features))
        del features
        until(lambda: seen() is None)
    finally:
        gc.enable()
