"""Threads and locks of the operating system, even where gevent or eventlet replace them.

eventlet and gevent replace what is in `threading` and `_thread` by their own, which switch between
tasks of one thread. The engine's workers are to be threads, as CTranslate2's are: they compute
while the program's tasks go on, and answer to any of its threads.
"""

from __future__ import annotations

import importlib.util
import threading

TYPE_CHECKING = False  # instead of typing's, see the package's __init__.py
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType, TracebackType
    from typing import Any


def _unpatched(name: str) -> ModuleType:
    """A built-in module as it is made anew; the one that is imported stays as it is."""
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_thread: Any = _unpatched("_thread")

get_ident: Callable[[], int] = _thread.get_ident
new_lock: Callable[[], threading.Lock] = _thread.allocate_lock
new_rlock: Callable[[], Any] = _thread.RLock

_ids: set[int] = set()


def start_thread(run: Callable[[], None]) -> None:
    """Run a function in a thread of its own, for which the interpreter's end does not wait.

    Raises:
        RuntimeError: There are no more threads to be had, or the interpreter is at its end.
    """

    def registered() -> None:
        native_id = _thread.get_native_id()
        _ids.add(native_id)
        try:
            run()
        finally:
            _ids.discard(native_id)

    _thread.start_new_thread(registered, ())


def thread_ids() -> set[int]:
    """What the system calls the threads that run Python's code, as far as it is known."""
    known = {getattr(thread, "native_id", None) for thread in threading.enumerate()}
    return {native_id for native_id in known if native_id is not None} | _ids


class Condition:
    """As `threading.Condition`, on a lock that its holder cannot take again."""

    def __init__(self) -> None:
        self._lock = new_lock()
        self._waiting: list[threading.Lock] = []

    def __enter__(self) -> Condition:
        self._lock.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lock.release()

    def wait(self, seconds: float = -1) -> bool:
        """Let go of the lock until another thread notifies, or for so many seconds at most.

        Returns:
            Whether another has notified.
        """
        notified = new_lock()
        notified.acquire()
        self._waiting.append(notified)
        self._lock.release()
        done = False
        try:
            done = notified.acquire(timeout=seconds)
        finally:
            self._lock.acquire()
            if not done and notified in self._waiting:
                self._waiting.remove(notified)
        return done

    def notify_all(self) -> None:
        """Wake all that wait."""
        waiting, self._waiting = self._waiting, []
        for notified in waiting:
            notified.release()
