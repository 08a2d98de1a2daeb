"""The cache folder: where it is, who may write to it, how files get into it and out of it.

The files hold native code, so they are used only where no other user can have put them: the folder
and each file belong to this user or to root, and nobody else may write to them. A file appears
whole or not at all, and its last bytes are a checksum, so that a damaged one is noticed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import logging
import mmap
import os
import re
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import platformdirs

from ...system.file_locks import LOCKLESS, is_leftover, locked, remove_leftover
from ...system.whole_files import whole_file

VARIABLE = "WHISPER_MAX_CACHE"
SCRATCH_PREFIX = "whisper-max-backend-"
"""How the names of folders begin that processes work in (`scratch_folder`)."""
WEIGHTS = "weights"
"""How the names of files of packed weights begin."""
UNUSED_DAYS = 90
"""A file that no process has read for so long is removed."""

_FOOTER = b"whisper-max-backend artifact, sha256:"
_FOOTER_SIZE = len(_FOOTER) + hashlib.sha256().digest_size
_DAY = 24 * 3600
# Others may keep files in a folder that the variable names: these are this package's.
_KEPT = re.compile(rf"[\w-]+-[0-9a-f]{{32}}\.(mef|mojoc)|{WEIGHTS}-[0-9a-f]{{32}}\.bin")
_UNFINISHED = re.compile(rf"\.({_KEPT.pattern})\.(lock|\w+\.draft)|{SCRATCH_PREFIX}\w+")

_log = logging.getLogger("whisper_max_backend")
_unusable: set[str] = set()
_complained: set[str] = set()
_tidied: set[Path] = set()


def cache_folder() -> Path:
    """Where files are kept: ``WHISPER_MAX_CACHE`` or the user's cache folder.

    Raises:
        FileNotFoundError: The user has no home folder, and the variable is not set.
    """
    chosen = os.environ.get(VARIABLE)
    if chosen:
        return Path(chosen).absolute()
    with contextlib.suppress(RuntimeError):  # newer versions of platformdirs raise it
        folder = Path(platformdirs.user_cache_dir("whisper-max-backend"))
        if folder.is_absolute():
            return folder
    raise FileNotFoundError("this user has no home folder")


def trusted_folder(make: bool = False) -> Path:
    """The cache folder, if what lies in it can be trusted.

    The user's own cache folder is closed to others where it is open. A folder that the variable
    names may serve other purposes: it keeps its mode, and is refused if others may write to it.

    Raises:
        OSError: It is refused, is not there, or cannot be made.
    """
    folder = cache_folder()
    if make:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    state = folder.stat()
    if not os.environ.get(VARIABLE) and state.st_uid == os.geteuid() and state.st_mode & 0o077:
        with contextlib.suppress(OSError):  # on a disk that cannot be written
            folder.chmod(0o700)
            state = folder.stat()
    _check(state)
    return folder


def find(name: str) -> bytes | None:
    """What `keep` was given under this name; None if it is absent or, as is logged, not usable."""
    try:
        folder = trusted_folder()
        tidy(folder)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        tell_unusable(error)
        return None
    path = folder / name
    try:
        with _opened(path) as file:
            return unsealed(file.read(), path)
    except FileNotFoundError:
        return None
    except OSError as error:
        _complain(f"the compiled file {path} is not used ({error.strerror or error})")
        return None


def mapped(name: str) -> np.ndarray | None:
    """What `keep_parts` was given under this name, uint8 ``[bytes]``; None as for `find`.

    The file is mapped. It is whole, for its name appears when all of it is on the disk, and nobody
    but this user or root may change it.
    """
    try:
        path = trusted_folder() / name
        with _opened(path) as file:
            # Private and writable, else MAX copies it.
            content = mmap.mmap(
                file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE
            )
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:  # of an empty file
        _complain(f"the file {name} in {VARIABLE} is not used ({error})")
        return None
    return np.frombuffer(content, np.uint8)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """A file that can be trusted; its time is that of its last use.

    Raises:
        OSError: It cannot be read, or is refused.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        state = os.fstat(descriptor)
        _check(state)
        if time.time() - state.st_mtime > _DAY:
            with contextlib.suppress(OSError):  # root's
                os.utime(descriptor)
        yield file


def unsealed(content: bytes, path: Path) -> bytes | None:
    """A file's content without its checksum; None if that is, as is logged, not right."""
    inner, footer = content[:-_FOOTER_SIZE], content[-_FOOTER_SIZE:]
    if footer == _FOOTER + hashlib.sha256(inner).digest():
        return inner
    _complain(f"the compiled file {path} is damaged; it is compiled again")
    return None


def keep(name: str, content: bytes) -> None:
    """Keep a content under a name; where that is not possible, the log says why, once."""
    try:
        keep_parts(name, [content, _FOOTER + hashlib.sha256(content).digest()])
    except OSError as error:
        tell_unusable(error)


def keep_parts(name: str, parts: Sequence[bytes | memoryview]) -> None:
    """Keep a content without a checksum: parts, one after another.

    Raises:
        OSError: It cannot be kept.
    """
    with whole_file(trusted_folder(make=True) / name, mode=0o600, synced=True) as file:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)  # it is no leftover
        for part in parts:
            file.write(part)


@contextlib.contextmanager
def making(name: str) -> Iterator[None]:
    """One process at a time makes the file of this name, where the folder allows a lock."""
    with contextlib.ExitStack() as stack:
        try:
            path = trusted_folder(make=True) / f".{name}.lock"
            stack.enter_context(
                locked(path, lambda: _log.info("waiting for another process that makes %s", name))
            )
        except OSError as error:
            if error.errno in LOCKLESS:
                _log.info("other processes may make %s, too (no lock: %s)", name, error)
            else:
                tell_unusable(error)
        yield


def tidy(folder: Path) -> None:
    """Once a process: remove what killed processes have left and what has long not been used."""
    if folder not in _tidied:
        _tidied.add(folder)
        for entry in contents(folder):
            if entry.idle:
                entry.remove()


@dataclasses.dataclass(frozen=True)
class Entry:
    """A file or folder of this package in the cache folder."""

    path: Path
    size: int
    """Bytes, those in a folder included."""
    unused: float
    """Days since its last use."""

    @property
    def unfinished(self) -> bool:
        """Whether a process works, or worked, on it."""
        return _KEPT.fullmatch(self.path.name) is None

    @property
    def idle(self) -> bool:
        """Whether a process has left it behind, or none has used it for too long."""
        return is_leftover(self.path) if self.unfinished else self.unused > UNUSED_DAYS

    def remove(self) -> bool:
        """Whether it is removed now: it was there, and no process works on it."""
        if self.unfinished:
            return remove_leftover(self.path)
        try:
            self.path.unlink()
        except OSError:
            return False
        return True


def limit_weights(most: int, newest: str) -> None:
    """Remove files of packed weights until they have so many bytes at most.

    The one that has not been used for longest goes first, and the newest last.
    """
    with contextlib.suppress(OSError):
        kept = [
            entry
            for entry in contents(trusted_folder())
            if entry.path.name.startswith(WEIGHTS) and entry.path.name != newest
        ]
        size = sum(entry.size for entry in kept) + (trusted_folder() / newest).stat().st_size
        for entry in sorted(kept, key=lambda entry: -entry.unused):
            if size > most and entry.remove():
                size -= entry.size


def contents(folder: Path) -> list[Entry]:
    """What of this package lies in the cache folder; files of others are not listed."""
    entries = []
    for path in sorted(folder.iterdir()):
        if _KEPT.fullmatch(path.name) or _UNFINISHED.fullmatch(path.name):
            with contextlib.suppress(OSError):  # removed meanwhile
                state = path.lstat()
                files = path.rglob("*") if stat.S_ISDIR(state.st_mode) else [path]
                size = sum(file.lstat().st_size for file in files)
                entries.append(Entry(path, size, (time.time() - state.st_mtime) / _DAY))
    return entries


def kept_in() -> Path | None:
    """The cache folder; None if it is known that nothing can be kept there."""
    with contextlib.suppress(OSError):
        folder = cache_folder()
        return None if str(folder) in _unusable else folder
    return None


def tell_unusable(error: Exception) -> None:
    """Log, once for each folder, that nothing can be kept there, and why."""
    try:
        where = str(cache_folder())
    except OSError:
        where = "the user's cache folder"
    if where not in _unusable:
        _unusable.add(where)
        _log.warning(
            "compiled graphs cannot be kept in %s (%s) and will be compiled again at the next "
            "start; set %s to a folder that you can write to and others cannot",
            where,
            error,
            VARIABLE,
        )


def _check(state: os.stat_result) -> None:
    """Raise PermissionError for what another user may have made or changed."""
    if state.st_uid not in (0, os.geteuid()):
        raise PermissionError(f"it belongs to another user, number {state.st_uid}")
    if state.st_mode & 0o022:
        raise PermissionError(f"others may write to it: its mode is {state.st_mode & 0o7777:04o}")


def _complain(message: str) -> None:
    """Log a warning once."""
    if message not in _complained:
        _complained.add(message)
        _log.warning(message)
