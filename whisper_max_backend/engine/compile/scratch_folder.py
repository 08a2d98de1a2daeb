"""A folder for what a process makes while it compiles, removed when the process ends.

It lies in the cache folder or, where that is not possible, among the system's temporary files. A
process that is killed leaves it behind; the next one removes it.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

from ...system.private_folder import PrivateFolder, remove_leftovers
from .cache import SCRATCH_PREFIX, VARIABLE, tell_unusable, trusted_folder

T = TypeVar("T")

_ROOM = 32 << 20
"""Bytes: more than compiling a model for a CPU writes."""


class _Scratch(NamedTuple):
    process: int
    """Which made it: after a fork, the parent of this one."""
    folder: PrivateFolder
    temporary: bool
    """Whether it is outside the cache folder."""


_current: _Scratch | None = None


def scratch_folder() -> Path:
    """This process's folder, made at the first call.

    Raises:
        RuntimeError: There is no folder that can be written to.
    """
    global _current
    if _current is None or _current.process != os.getpid() or not _current.folder.path.is_dir():
        _current = _make()
    return _current.folder.path


def with_room(work: Callable[[], T]) -> T:
    """What ``work`` returns; if it fails on a full disk, it is done again in another folder.

    The compilers do not say that the disk is full, so the folder is asked.

    Raises:
        RuntimeError: There is no other folder that can be written to, or that is full, too.
    """
    global _current
    while True:
        try:
            return work()
        except (OSError, RuntimeError):
            if _current is None:
                raise
            try:
                _require_room(_current.folder.path)
            except OSError as full:
                if _current.temporary:
                    raise RuntimeError(
                        f"there is no room to compile the model ({full}): free some, or set "
                        f"{VARIABLE} to a folder that has {_ROOM >> 20} MB"
                    ) from full
                _current = _instead_of(_current.folder, full)
            else:
                raise


def _make() -> _Scratch:
    try:
        folder = _make_in(trusted_folder(make=True))
    except OSError as error:
        return _make_temporary(error)
    try:
        _require_room(folder.path)
    except OSError as error:
        return _instead_of(folder, error)
    return _Scratch(os.getpid(), folder, temporary=False)


def _instead_of(folder: PrivateFolder, full: OSError) -> _Scratch:
    folder.remove()
    return _make_temporary(full)


def _make_temporary(reason: OSError) -> _Scratch:
    """Among the temporary files, because of what is wrong with the cache folder."""
    tell_unusable(reason)
    try:
        parent = Path(tempfile.gettempdir())
        remove_leftovers(parent, SCRATCH_PREFIX)
        return _Scratch(os.getpid(), _make_in(parent), temporary=True)
    except OSError as error:
        raise RuntimeError(
            f"there is no folder to compile the model in: neither the cache folder ({reason}) nor "
            f"that of temporary files ({error}) can be written to; set {VARIABLE} to a folder "
            "that can"
        ) from error


def _make_in(parent: Path) -> PrivateFolder:
    folder = PrivateFolder(parent, SCRATCH_PREFIX)
    atexit.register(_remove, os.getpid(), folder)
    return folder


def _remove(process: int, folder: PrivateFolder) -> None:
    """At the exit of the process that made the folder, but not of one that was forked from it."""
    if process == os.getpid():
        folder.remove()


def _require_room(folder: Path) -> None:
    """Raise OSError if a compilation's files do not fit.

    Written to the full, the compiler fails without telling why, or ends the process.
    """
    probe = folder / "room"
    try:
        with open(probe, "wb", buffering=0) as file:
            for _ in range(_ROOM >> 20):
                if file.write(bytes(1 << 20)) < 1 << 20:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(probe))
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()
