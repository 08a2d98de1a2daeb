"""Which recordings a process was at when it died.

A damaged file can end the process that decodes it. A shard is tried again when its process has
died; so that one file does not end every process, the recordings that it was at are noted.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from pathlib import Path

from .shards import CannotWrite

MOST_DEATHS = 3
"""Of processes at a recording, before it counts as failed."""


class Attempts:
    """The notes of one shard, in a file that goes when the shard is written.

    Attributes:
        deadly: Keys at which as many processes of this run have died as may.
    """

    def __init__(self, path: Path, run: str) -> None:
        """Begin an attempt.

        Args:
            path: The file of the shard.
            run: The run's name. Attempts of others do not count: someone may have stopped them.

        Raises:
            CannotWrite: The file cannot be written.
        """
        self._path = path
        deaths: Counter[str] = Counter()
        with contextlib.suppress(FileNotFoundError):
            for attempt in path.read_text(encoding="utf-8").split("\n= ")[1:]:
                of, *lines = attempt.split("\n")
                if of == run:
                    begun = Counter(line[2:] for line in lines if line.startswith("+ "))
                    begun.subtract(line[2:] for line in lines if line.startswith("- "))
                    deaths.update(key for key, count in begun.items() if count > 0)
        self.deadly = {key for key, count in deaths.items() if count >= MOST_DEATHS}
        self._note(f"\n= {run}\n")

    def begin(self, key: str) -> None:
        self._note(f"+ {_line(key)}\n")

    def end(self, key: str) -> None:
        self._note(f"- {_line(key)}\n")

    def forget(self) -> None:
        """The shard is written."""
        with contextlib.suppress(OSError):
            self._path.unlink()

    def _note(self, line: str) -> None:
        try:
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(line)
        except OSError as error:
            raise CannotWrite(error.errno, error.strerror, str(self._path)) from error


def _line(key: str) -> str:
    return key.replace("\n", "\\n")
