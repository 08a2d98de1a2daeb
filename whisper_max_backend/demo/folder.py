"""The folder of a running server: its own user's alone, and gone with the server."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..system.private_folder import PrivateFolder, remove_leftovers

_PREFIX = "whisper-max-demo-"


@contextmanager
def private_folder() -> Iterator[Path]:
    """A new folder, removed at the end; those of servers that were killed are removed as well."""
    parent = Path(tempfile.gettempdir())
    remove_leftovers(parent, _PREFIX)
    folder = PrivateFolder(parent, _PREFIX)
    try:
        yield folder.path
    finally:
        folder.remove()
