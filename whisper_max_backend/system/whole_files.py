"""Files that are there as a whole, or not at all, whenever their writer is stopped."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def whole_file(path: Path, *, mode: int = 0o666, synced: bool = False) -> Iterator[BinaryIO]:
    """A file to write, which takes its place when all is written.

    Until then it lies beside it, as `.NAME.RANDOM.draft`. After an error it is gone, and what had
    been in its place is there still.

    Args:
        path: Its place.
        mode: As for `os.open`: the umask is taken off.
        synced: The file is on the disk before it takes its place, and its name at the end.

    Raises:
        OSError: It cannot be written.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.draft")
    with open(draft, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
        try:
            yield file
            file.flush()
            if synced:
                os.fsync(file.fileno())
            os.replace(draft, path)
        except BaseException:
            with contextlib.suppress(OSError):
                draft.unlink()
            raise
    if synced:
        _sync(path.parent)


def _sync(folder: Path) -> None:
    """Have the system write down which names the folder has."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
