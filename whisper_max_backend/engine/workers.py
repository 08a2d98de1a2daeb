"""Workers: several requests in parallel on loaded models, the others in a bounded queue."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Generic, TypeVar

Model = TypeVar("Model")
Result = TypeVar("Result")


REQUESTS_AT_ONCE = 16
"""Requests that a worker of a device with shared steps runs at the same time, as long as its memory
has room for their keys and values."""


class Workers(Generic[Model]):
    """Runs each request with the first model that is free.

    The counterpart of CTranslate2's ``ReplicaPool`` and ``ThreadPool``. A model may be given more
    than once, for several workers. The threads end when this object is dropped and its requests
    are done.
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
        threads = self.count * requests_at_once
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="whisper-max")
        self._changed = threading.Condition()
        self._queued = 0
        self._active = 0
        self._free: SimpleQueue[Model] | None = None
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

    def post(self, request: Callable[[Model], Result]) -> Future[Result]:
        """Have a request run by the next free worker; blocks while the queue is full.

        Raises:
            RuntimeError: The models were taken away.
        """
        with self._changed:
            free = self._free
            if free is None:
                raise RuntimeError("The model was unloaded; call load_model() to use it again")
            self._active += 1
            try:
                self._changed.wait_for(lambda: self._queued < self._capacity)
                self._queued += 1
                try:
                    return self._threads.submit(self._run, request, free)
                except BaseException:  # the interpreter is going down
                    self._queued -= 1
                    raise
            except BaseException:
                self._active -= 1
                raise

    def _run(self, request: Callable[[Model], Result], free: SimpleQueue[Model]) -> Result:
        with self._changed:
            self._queued -= 1
            self._changed.notify()
        model = free.get()
        try:
            return request(model)
        finally:
            free.put(model)
            with self._changed:
                self._active -= 1
