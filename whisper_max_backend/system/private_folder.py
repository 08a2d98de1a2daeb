"""A process's own folder, which others cannot read and which does not stay.

The process holds a lock on a file in it, so the next one knows what a killed one has left behind.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from pathlib import Path

from .file_locks import LOCKLESS, lock, remove_leftover


class PrivateFolder:
    """A new folder of mode 0700 with an unpredictable name.

    Attributes:
        path: Where it is.
    """

    def __init__(self, parent: Path, prefix: str) -> None:
        """Make a folder in `parent`, whose name begins with `prefix`.

        Raises:
            OSError: It cannot be made.
        """
        while True:
            self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
            try:
                self._lock = lock(self.path / "lock")
            except FileNotFoundError:  # taken for a leftover before it was locked
                continue
            except OSError as error:
                if error.errno not in LOCKLESS:
                    self._lock = None
                    self.remove()
                    raise
                self._lock = None  # nobody can take it for a leftover
                return
            if self._lock is not None:
                return

    def remove(self) -> None:
        """Remove the folder with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def remove_leftovers(parent: Path, prefix: str) -> None:
    """Remove the folders of this user's processes that were killed."""
    for path in parent.glob(f"{prefix}*"):
        with contextlib.suppress(FileNotFoundError):  # removed meanwhile
            state = path.lstat()
            if state.st_uid == os.geteuid() and stat.S_ISDIR(state.st_mode):
                remove_leftover(path)
