"""Workers: several requests in parallel on loaded models, the others in a bounded queue."""

from __future__ import annotations

import functools
import sys
import weakref
from _queue import SimpleQueue  # `queue` has another one where eventlet or gevent are at work
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from ...system.cancellation import StopFlag, request_flag
from ...system.fork_and_exit import check_not_forked, inside_max
from ...system.unpatched_threads import Condition, new_lock, start_thread

Model = TypeVar("Model")
Result = TypeVar("Result")


REQUESTS_AT_ONCE = 64
"""Requests that a worker of a device with shared steps runs at the same time, as long as its memory
has room for their keys and values."""


_LOOK_SECONDS = 0.02
"""How often a request that waits for its turn looks whether it was cancelled."""


class RequestFuture(Generic[Result]):
    """A request on its way, and its result."""

    def __init__(self) -> None:
        self.stop = request_flag()
        self.begun = False
        self.dropped = False
        self._done = False
        self._results: list[Result] = []  # one, unless there is an error
        self._error: BaseException | None = None
        self._pending = new_lock()
        self._pending.acquire()

    def done(self) -> bool:
        """Whether there is a result or an error."""
        return self._done

    def wait(self, seconds: float = -1) -> bool:
        """Block until it is done, or for so long at most; returns whether it is done."""
        if not self._done and self._pending.acquire(timeout=seconds):
            self._pending.release()
        return self._done

    def result(self) -> Result:
        """Block until it is done; the result, or the exception that there is instead."""
        self.wait()
        try:
            if self._error is not None:
                raise self._error
            return self._results[0]
        finally:
            del self  # the error knows this frame, and would live until garbage is collected

    def compute(self, request: Callable[[Model, StopFlag], Result], model: Model) -> None:
        """Keep what the request returns or raises."""
        try:
            self.stop.check()
            self._results.append(request(model, self.stop))
        except BaseException as error:
            self._error = error
        finally:
            del self

    def finish(self) -> None:
        """Wake all that wait."""
        self._done = True
        self._pending.release()


class Workers(Generic[Model]):
    """Runs each request with the first model that is free.

    The counterpart of CTranslate2's ``ReplicaPool`` and ``ThreadPool``. A model may be given more
    than once, for several workers. The threads end when this object is dropped and its requests
    are done. At the end of the interpreter they serve other threads and exit handlers to the last.
    """

    def __init__(
        self, models: Sequence[Model], max_queued: int = 0, requests_at_once: int = 1
    ) -> None:
        """Start workers.

        Args:
            models: One for each worker.
            max_queued: How many requests may wait: -1 for any number, 0 for four a worker.
            requests_at_once: How many requests a worker runs at the same time.
        """
        self.count = len(models)
        self._requests_at_once = requests_at_once
        if max_queued < 0:
            self._capacity = sys.maxsize
        else:
            self._capacity = max_queued or 4 * self.count
        self._changed = Condition()
        self._queued = 0
        self._active = 0
        self._free: SimpleQueue[Model] | None = None
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._threads = _started(self.count * requests_at_once, self._jobs)
        weakref.finalize(self, _stop, self._threads, self._jobs).atexit = False
        self.attach(models)

    @property
    def queued(self) -> int:
        """Requests that wait for a worker."""
        return self._queued

    @property
    def active(self) -> int:
        """Requests that wait or run."""
        return self._active

    @property
    def attached(self) -> bool:
        """Whether the workers have their models."""
        return self._free is not None

    def attach(self, models: Sequence[Model]) -> None:
        """Give the workers their models, one each."""
        free: SimpleQueue[Model] = SimpleQueue()
        for _ in range(self._requests_at_once):
            for model in models:
                free.put(model)
        with self._changed:
            self._free = free

    def detach(self) -> bool:
        """Take the models away, unless requests are active; returns whether it was done."""
        with self._changed:
            if self._active > 0:
                return False
            self._free = None
            return True

    def run(self, request: Callable[[Model, StopFlag], Result]) -> Result:
        """Have a request run by the next free worker, and wait for its result.

        An interrupt of the waiting thread, as by Ctrl-C, stops the request or takes it from the
        queue, and is raised then: nothing goes on in the background.

        Raises:
            RuntimeError: The models were taken away, or this is a fork of their process.
            Cancelled: By the context's token.
        """
        future = self.post(request)
        try:
            while not future.wait(_LOOK_SECONDS if future.stop.has_token else -1):
                future.stop.check()
        except BaseException:
            future.stop.stop()
            self._drop(future)
            future.wait()
            raise
        try:
            return future.result()
        finally:
            del future  # see `RequestFuture.result`

    def post(self, request: Callable[[Model, StopFlag], Result]) -> RequestFuture[Result]:
        """Have a request run by the next free worker; blocks while the queue is full.

        Raises:
            RuntimeError: The models were taken away, or this is a fork of their process.
            Cancelled: By the context's token.
        """
        check_not_forked()
        future: RequestFuture[Result] = RequestFuture()
        with self._changed:
            free = self._free
            if free is None:
                raise RuntimeError("The model was unloaded; call load_model() to use it again")
            self._active += 1
            try:
                while self._queued >= self._capacity:
                    self._changed.wait(_LOOK_SECONDS if future.stop.has_token else -1)
                    future.stop.check()
            except BaseException:
                self._active -= 1
                raise
            self._queued += 1
        job = functools.partial(self._work, future, request, free)
        if self._threads > 0:
            self._jobs.put(job)
        else:
            job()
        return future

    def _work(
        self,
        future: RequestFuture[Result],
        request: Callable[[Model, StopFlag], Result],
        free: SimpleQueue[Model],
    ) -> None:
        with self._changed:
            if future.dropped:
                return
            future.begun = True
            self._queued -= 1
            self._changed.notify_all()
        model = free.get()
        with inside_max:
            future.compute(request, model)
        free.put(model)
        with self._changed:
            self._active -= 1
        future.finish()
        del future  # see `RequestFuture.result`

    def _drop(self, future: RequestFuture[Result]) -> None:
        """Take a request from the queue, if it is there still."""
        with self._changed:
            if future.begun:
                return
            future.dropped = True
            self._queued -= 1
            self._active -= 1
            self._changed.notify_all()
        future.finish()


def _started(count: int, jobs: SimpleQueue[Callable[[], None] | None]) -> int:
    """How many threads there are to serve the queue, of as many as are wanted.

    None at the interpreter's end, when it starts no more: then callers do the work themselves.
    """
    for started in range(count):
        try:
            start_thread(functools.partial(_serve, jobs))
        except RuntimeError:
            return started
    return count


def _serve(jobs: SimpleQueue[Callable[[], None] | None]) -> None:
    while (job := jobs.get()) is not None:
        job()
        del job  # and with it, perhaps, the workers


def _stop(threads: int, jobs: SimpleQueue[Callable[[], None] | None]) -> None:
    for _ in range(threads):
        jobs.put(None)
