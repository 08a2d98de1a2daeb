"""Stops calls: from another thread, or by Ctrl-C."""

from __future__ import annotations

import contextlib
import functools
import weakref
from _thread import TIMEOUT_MAX
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any
from weakref import WeakSet

import numpy as np
import numpy.typing as npt

from .unpatched_threads import new_lock, new_rlock, start_thread

CANCELLED = "the call was cancelled"


class Cancelled(Exception):
    """A call was stopped by the token that it was given."""


class StopFlag:
    """Whether one request is to stop.

    Attributes:
        array: int32 ``[1]``, 1 from then on; kernels look at it while they run.
        has_token: Whether a `CancelToken` may stop it.
    """

    def __init__(self) -> None:
        self.array: npt.NDArray[np.int32] = np.zeros(1, np.int32)
        self.has_token = False
        self._reason = CANCELLED

    def stop(self, reason: str = CANCELLED) -> None:
        """Stop the request as soon as it looks."""
        self._reason = reason
        self.array[0] = 1

    def check(self) -> None:
        """To be called by the request after each part of its work.

        Raises:
            Cancelled: It is to stop.
        """
        if self.array[0] != 0:
            raise Cancelled(self._reason)


NEVER = StopFlag()
"""Of what is not to be stopped."""


class CancelToken:
    """Stops the calls that it is given to; one token may be given to several, in any threads."""

    def __init__(self, timeout: float | None = None) -> None:
        """A token for calls that begin from now on.

        Args:
            timeout: Seconds from now after which it cancels by itself, whether a call still waits
                for its turn or has begun.

        Raises:
            ValueError: The timeout is negative, or not a number.
        """
        self._lock = new_rlock()  # a signal handler may cancel while this thread holds it
        self._cancelled = False
        self._reason = CANCELLED
        self._flags: WeakSet[StopFlag] = WeakSet()
        if timeout is not None:
            if not timeout >= 0:
                raise ValueError(f"timeout must be a number of seconds from 0 on, got {timeout}")
            _start_timer(self, timeout)

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._cancelled

    def cancel(self) -> None:
        """Make every call with this token raise `Cancelled`, those that come later as well."""
        self._cancel(CANCELLED)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Requests of this context, made within, stop when the token is cancelled.

        Raises:
            Cancelled: It is cancelled already.
        """
        if self._cancelled:
            raise Cancelled(self._reason)
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)

    def _cancel(self, reason: str) -> None:
        with self._lock:
            if not self._cancelled:
                self._reason = reason
            self._cancelled = True
            for flag in self._flags:
                flag.stop(self._reason)

    def _add(self, flag: StopFlag) -> None:
        with self._lock:
            self._flags.add(flag)
            if self._cancelled:
                flag.stop(self._reason)


def _start_timer(token: CancelToken, seconds: float) -> None:
    """Cancel a token later, unless it is gone by then."""
    gone = new_lock()
    gone.acquire()
    weakref.finalize(token, gone.release).atexit = False
    start_thread(functools.partial(_wait, weakref.ref(token), gone, seconds))


def _wait(reference: weakref.ref[CancelToken], gone: Any, seconds: float) -> None:
    if not gone.acquire(timeout=min(seconds, TIMEOUT_MAX)) and (token := reference()):
        token._cancel(f"the call was not done within {seconds:g} seconds")


_current: ContextVar[CancelToken | None] = ContextVar("_current", default=None)


def request_flag() -> StopFlag:
    """The flag of a new request, which the context's token stops, if there is one."""
    flag, token = StopFlag(), _current.get()
    if token is not None:
        flag.has_token = True
        token._add(flag)
    return flag
