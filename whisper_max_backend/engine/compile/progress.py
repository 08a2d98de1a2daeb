"""What the user sees while a graph is compiled for the first time."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from pathlib import Path

_log = logging.getLogger("whisper_max_backend")


@contextlib.contextmanager
def announced(name: str, folder: Path | None, about_seconds: float) -> Iterator[None]:
    """Say what is compiled, for how long and where it is kept; on a terminal show time passing.

    ``folder`` is None where it cannot be kept.
    """
    from rich.console import Console  # most runs find everything compiled
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    message = f"compiling {name}: about {about_seconds:.0f} s"
    if folder is not None:
        message += f", once; kept in {folder}"
    started = time.monotonic()
    console = Console(stderr=True)
    if console.is_terminal:
        console.print(f"whisper-max-backend: {message}", markup=False, highlight=False)
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, console=console, transient=True) as bar:
            bar.add_task(name, total=None)
            yield
    else:
        _log.warning(message)  # seen where a program has not set up logging, too
        yield
    _log.info("compiled %s in %.0f s", name, time.monotonic() - started)
