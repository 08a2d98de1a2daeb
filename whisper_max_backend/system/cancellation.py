"""Stops calls: from another thread, or by Ctrl-C."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from weakref import WeakSet

import numpy as np
import numpy.typing as npt

from .unpatched_threads import new_rlock


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

    def stop(self) -> None:
        """Stop the request as soon as it looks."""
        self.array[0] = 1

    def check(self) -> None:
        """To be called by the request after each part of its work.

        Raises:
            Cancelled: It is to stop.
        """
        if self.array[0] != 0:
            raise Cancelled("the call was cancelled")


NEVER = StopFlag()
"""Of what is not to be stopped."""


class CancelToken:
    """Stops the calls that it is given to; one token may be given to several, in any threads."""

    def __init__(self) -> None:
        self._lock = new_rlock()  # a signal handler may cancel while this thread holds it
        self._cancelled = False
        self._flags: WeakSet[StopFlag] = WeakSet()

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._cancelled

    def cancel(self) -> None:
        """Make every call with this token raise `Cancelled`, those that come later as well."""
        with self._lock:
            self._cancelled = True
            for flag in self._flags:
                flag.stop()

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Requests of this context, made within, stop when the token is cancelled.

        Raises:
            Cancelled: It is cancelled already.
        """
        if self._cancelled:
            raise Cancelled("the call was cancelled")
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)

    def _add(self, flag: StopFlag) -> None:
        with self._lock:
            self._flags.add(flag)
            if self._cancelled:
                flag.stop()


_current: ContextVar[CancelToken | None] = ContextVar("_current", default=None)


def request_flag() -> StopFlag:
    """The flag of a new request, which the context's token stops, if there is one."""
    flag, token = StopFlag(), _current.get()
    if token is not None:
        flag.has_token = True
        token._add(flag)
    return flag
