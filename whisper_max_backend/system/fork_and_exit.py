"""Guards against the use of MAX after a fork or while the interpreter ends.

MAX computes in threads of its own. `fork` copies the process without them, so in the copy every
execution would wait for ever. And a thread that comes back from MAX after the interpreter has
stopped its daemon threads is ended inside C++, which ends the process with an error.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from .unpatched_threads import get_ident, new_lock


def max_starts() -> None:
    """To be called where MAX gets its threads: with the first device.

    Raises:
        RuntimeError: It has them already, in the process that this one was forked from.
    """
    check_not_forked()
    if inside_max.home is None:
        inside_max.home = os.getpid()
        atexit.register(_keep, _Last())
        if sys.platform == "linux":
            os.register_at_fork(after_in_child=functools.partial(_end_at_once, ctypes.CDLL(None)))


def _end_at_once(libc: ctypes.CDLL) -> None:
    """Have this process end before C++ destroys MAX's static objects, which wait for its threads.

    The C library runs its exit handlers in the reverse order, with the exit status.
    """
    libc.on_exit(libc._exit, None)
    libc.__cxa_atexit(libc.fflush, None, None)


def is_forked() -> bool:
    """Whether MAX has started in the process that this one is a copy of."""
    return inside_max.forked


def check_not_forked() -> None:
    """Refuse to compute in a forked process.

    Raises:
        RuntimeError: MAX has started in the process that this one was forked from.
    """
    if is_forked():
        raise RuntimeError(
            "this process was forked from one that had loaded a model, whose threads stayed "
            "there, so nothing can be computed here: load the model after the fork only, or start "
            "processes with multiprocessing's method 'spawn' or 'forkserver'"
        )


class _Inside:
    """The threads that use MAX. A context manager, which a thread may enter again."""

    def __init__(self) -> None:
        self.home: int | None = None  # the process in which MAX has started its threads
        # The names of the module may be gone when the last object is dropped.
        self._get_ident = get_ident
        self._getpid = os.getpid
        self._keep_for_ever = ctypes.pythonapi["Py_IncRef"]
        self._keep_for_ever.argtypes = [ctypes.py_object]
        self._depths: dict[int, int] = {}  # of each thread, whose own entry it is
        self._last: int | None = None

    def __enter__(self) -> None:
        check_not_forked()
        self._enter(1)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._leave()

    @property
    def forked(self) -> bool:
        """Whether this process is a copy of the one with MAX's threads."""
        return self.home not in (None, self._getpid())

    def drop(self, attributes: dict[str, Any]) -> None:
        """Drop an object's attributes within; in a forked process, keep them for ever.

        To free the results of a graph, MAX waits for its threads.
        """
        if self.forked:
            self._keep_for_ever(attributes)
            return
        self._enter(1)
        attributes.clear()
        self._leave()

    @contextmanager
    def buffers(self) -> Iterator[None]:
        """Buffers are read, copied or sliced within. A forked process may do that, too.

        For each of these, MAX lets other threads run and then waits for its turn.
        """
        self._enter(1)
        try:
            yield
        finally:
            self._leave()

    @contextmanager
    def left(self) -> Iterator[None]:
        """A long call within, for which the end of the process does not wait."""
        depth = self._depths.pop(self._get_ident(), 0)
        try:
            yield
        finally:
            if depth > 0:
                self._enter(depth)

    def close(self) -> None:
        """Let no other thread in any more, and wait until all are out."""
        self._last = get_ident()
        while self._depths.keys() - {self._last}:
            time.sleep(0.001)

    def _enter(self, depth: int) -> None:
        ident = self._get_ident()
        self._depths[ident] = self._depths.get(ident, 0) + depth  # before `close` is looked for
        if self._last not in (None, ident):
            del self._depths[ident]
            never = new_lock()
            never.acquire()
            never.acquire()  # the interpreter is about to stop this thread

    def _leave(self) -> None:
        ident = self._get_ident()
        self._depths[ident] -= 1
        if self._depths[ident] == 0:
            self._depths.pop(ident, None)  # `drop` comes between where garbage is collected


inside_max = _Inside()


class DroppedInside:
    """Owns buffers or graphs of MAX. The end of the process waits while they are dropped.

    A buffer's destructor lets other threads run and then waits for its turn.
    """

    _inside = inside_max

    def __del__(self) -> None:
        self._inside.drop(vars(self))


class _Last:
    """Collected when the interpreter drops its exit handlers, all of which may still transcribe."""

    def __del__(self) -> None:
        if not threading.main_thread().is_alive() and not is_forked():
            inside_max.close()


def _keep(last: _Last) -> None:
    """An exit handler that does nothing but hold its argument until all of them have run."""
