"""Calls that several threads make at the same time, run as one batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

from ...system.unpatched_threads import Condition

PATIENCE = 4.0
"""How many times as long as usual the others wait for a thread that has joined."""
PATIENCE_SECONDS = 0.01
"""What they wait besides."""

Request = TypeVar("Request")
Result = TypeVar("Result")


class _Call(Generic[Request, Result]):
    """One thread's call."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.done = False
        self._results: list[Result] = []  # one, unless there is an error
        self.error: BaseException | None = None

    def finish(self, result: Result) -> None:
        self._results = [result]
        self.done = True

    def fail(self, error: BaseException) -> None:
        self.error = error
        self.done = True

    def outcome(self) -> Result:
        if self.error is not None:
            raise self.error
        return self._results[0]


class Batcher(Generic[Request, Result]):
    """Runs what several threads ask for at the same time as one batch.

    There is no thread of its own: a call that finds nobody at work does the work at once, for
    itself and for all that wait. Threads that call again and again `join`; work begins when all of
    them have asked, so that they stay together, or when one of them takes so much longer than usual
    that the others go on without it. Between two calls a thread that has joined must not wait for
    one that waits here.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Request]], Sequence[Result]],
        kind: Callable[[Request], Hashable],
    ) -> None:
        """Batch calls.

        Args:
            run: Answers several at once; of one kind, and by one thread at a time. After an error
                it is asked for each of them alone.
            kind: What can be run together is of equal kind; other kinds take turns.
        """
        self._run = run
        self._kind = kind
        self._changed = Condition()
        self._waiting: list[_Call[Request, Result]] = []
        self._joined = 0
        self._busy = False
        self._since = 0.0  # when the first of those that wait could have been answered
        self._usual = 0.0  # seconds from then until all had asked

    def join(self) -> None:
        """The calling thread will call again and again, and is waited for."""
        with self._changed:
            self._joined += 1

    def leave(self) -> None:
        """A thread that has joined will not call any more."""
        with self._changed:
            self._joined -= 1
            self._changed.notify_all()

    def call(self, request: Request) -> Result:
        """The result, which may have been made in another thread.

        Raises:
            Exception: What `run` raised for this one alone.
        """
        call: _Call[Request, Result] = _Call(request)
        with self._changed:
            if not self._waiting:
                self._since = time.monotonic()
            self._waiting.append(call)
            try:
                self._wait_for_turn(call)
            except BaseException:  # interrupted
                if call in self._waiting:
                    self._waiting.remove(call)
                raise
            if call.done:
                return call.outcome()
            calls, self._waiting = self._waiting, []
            self._busy = True
        try:
            self._run_kinds(calls)
        except BaseException:  # interrupted: nobody is to wait for ever
            for other in calls:
                if not other.done:
                    other.fail(RuntimeError("the thread that did this work was interrupted"))
            raise
        finally:
            with self._changed:
                self._busy = False
                self._since = time.monotonic()
                self._changed.notify_all()
        return call.outcome()

    def _wait_for_turn(self, call: _Call[Request, Result]) -> None:
        """Waits until a call is done, or is to be done by this thread with all that wait."""
        while not call.done:
            if self._ready():
                self._usual += 0.1 * (time.monotonic() - self._since - self._usual)
                return
            notified = self._changed.wait(PATIENCE * self._usual + PATIENCE_SECONDS)
            if not notified and not self._busy:
                return

    def _ready(self) -> bool:
        return not self._busy and len(self._waiting) >= self._joined

    def _run_kinds(self, calls: Sequence[_Call[Request, Result]]) -> None:
        """Runs calls kind by kind; threads with a result go on while other kinds are run."""
        kinds: dict[Hashable, list[_Call[Request, Result]]] = {}
        for call in calls:
            kinds.setdefault(self._kind(call.request), []).append(call)
        for alike in kinds.values():
            self._run_kind(alike)
            with self._changed:
                self._changed.notify_all()

    def _run_kind(self, calls: Sequence[_Call[Request, Result]]) -> None:
        try:
            results = self._run([call.request for call in calls])
        except Exception as error:
            if len(calls) == 1:
                calls[0].fail(error)
                return
            for call in calls:
                self._run_kind([call])
            return
        for call, result in zip(calls, results, strict=True):
            call.finish(result)
