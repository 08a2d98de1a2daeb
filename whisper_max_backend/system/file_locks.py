"""Locks on files, which the operating system lifts when the process that holds one ends.

So what a process works on is locked, and what can be locked is a leftover of one that was killed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

LOCKLESS = frozenset([errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK])
"""Errors of a file system that has no locks."""


def lock(path: Path, waiting: Callable[[], None] | None = None) -> int | None:
    """A descriptor that holds the lock of a file, which is made if it is not there.

    Args:
        waiting: Called before waiting for another holder; without it there is no waiting.

    Returns:
        None if another holds it and ``waiting`` is not given, or if it is removed by now.

    Raises:
        OSError: The file cannot be written, or the file system has no locks.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting is None:
                os.close(descriptor)
                return None
            waiting()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return descriptor
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


@contextlib.contextmanager
def locked(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the lock of a file, which is removed at the end.

    Raises:
        OSError: As for `lock`.
    """
    descriptor = None
    while descriptor is None:  # the holder waited for has removed the file
        descriptor = lock(path, waiting)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(descriptor)


def is_leftover(path: Path) -> bool:
    """Whether nobody holds a file that is its own lock, or a folder with a file ``lock``."""
    with _leftover(path) as found:
        return found


def remove_leftover(path: Path) -> bool:
    """Whether the file or folder was a leftover, and is removed now.

    Whoever makes a folder has to make sure, once it holds the lock, that the folder is there.
    """
    with _leftover(path) as found:
        if not found:
            return False
        try:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        except OSError:
            return False
        return True


@contextlib.contextmanager
def _leftover(path: Path) -> Iterator[bool]:
    """Whether nobody held the lock; in this block, nobody else does."""
    try:
        held = lock(path / "lock" if path.is_dir() else path)
    except OSError:  # not ours, gone, or on a file system without locks
        held = None
    try:
        yield held is not None
    finally:
        if held is not None:
            os.close(held)
