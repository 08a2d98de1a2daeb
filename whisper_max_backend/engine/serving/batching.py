"""Calls of several threads, run together."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

from ...system.os_threads import Condition

Ask = TypeVar("Ask")
Answer = TypeVar("Answer")


class _Call(Generic[Ask, Answer]):
    """One thread's call."""

    def __init__(self, ask: Ask) -> None:
        self.ask = ask
        self.done = False
        self.answers: list[Answer] = []  # one, unless there is an error
        self.error: BaseException | None = None

    def finish(self, answer: Answer) -> None:
        self.answers = [answer]
        self.done = True

    def fail(self, error: BaseException) -> None:
        self.error = error
        self.done = True

    def result(self) -> Answer:
        if self.error is not None:
            raise self.error
        return self.answers[0]


class Gathering(Generic[Ask, Answer]):
    """Runs what several threads ask for at the same time as one.

    There is no thread of its own and no timer: a call that finds nobody at work does the work at
    once, for itself and for all that wait. Threads that call again and again `join`; work begins
    when all of them have asked, so that they stay together. Between two calls a thread that has
    joined must not wait for another.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Ask]], Sequence[Answer]],
        kind: Callable[[Ask], Hashable],
    ) -> None:
        """Gather calls.

        Args:
            run: Answers several at once; of one kind, and by one thread at a time. After an error
                it is asked for each of them alone.
            kind: What can be run together is of equal kind; other kinds take turns.
        """
        self._run = run
        self._kind = kind
        self._changed = Condition()
        self._waiting: list[_Call[Ask, Answer]] = []
        self._joined = 0
        self._busy = False

    def join(self) -> None:
        """The calling thread will call again and again, and is waited for."""
        with self._changed:
            self._joined += 1

    def leave(self) -> None:
        """A thread that has joined will not call any more."""
        with self._changed:
            self._joined -= 1
            self._changed.notify_all()

    def call(self, ask: Ask) -> Answer:
        """The answer, which may have been made in another thread.

        Raises:
            Exception: What `run` raised for this one alone.
        """
        call: _Call[Ask, Answer] = _Call(ask)
        with self._changed:
            self._waiting.append(call)
            try:
                self._changed.wait_for(lambda: call.done or self._ready())
            except BaseException:  # interrupted
                if call in self._waiting:
                    self._waiting.remove(call)
                raise
            if call.done:
                return call.result()
            calls, self._waiting = self._waiting, []
            self._busy = True
        try:
            self._work(calls)
        except BaseException:  # interrupted: nobody is to wait for ever
            for other in calls:
                if not other.done:
                    other.fail(RuntimeError("the thread that did this work was interrupted"))
            raise
        finally:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
        return call.result()

    def _ready(self) -> bool:
        return not self._busy and len(self._waiting) >= self._joined

    def _work(self, calls: Sequence[_Call[Ask, Answer]]) -> None:
        """Runs calls kind by kind; threads with an answer go on while other kinds are run."""
        kinds: dict[Hashable, list[_Call[Ask, Answer]]] = {}
        for call in calls:
            kinds.setdefault(self._kind(call.ask), []).append(call)
        for alike in kinds.values():
            self._answer(alike)
            with self._changed:
                self._changed.notify_all()

    def _answer(self, calls: Sequence[_Call[Ask, Answer]]) -> None:
        try:
            answers = self._run([call.ask for call in calls])
        except Exception as error:
            if len(calls) == 1:
                calls[0].fail(error)
                return
            for call in calls:
                self._answer([call])
            return
        for call, answer in zip(calls, answers, strict=True):
            call.finish(answer)
