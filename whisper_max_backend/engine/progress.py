"""What the user sees while a graph is compiled for the first time."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

_log = logging.getLogger("whisper_max_backend")


@contextlib.contextmanager
def announced(name: str, folder: Path, about_seconds: float) -> Iterator[None]:
    """Say what is compiled, for how long and where it is kept; on a terminal show time passing."""
    message = (
        f"compiling {name} for this machine: about {about_seconds:.0f} s, once; kept in {folder}"
    )
    _log.info(message)
    started = time.monotonic()
    if sys.stderr is not None and sys.stderr.isatty():
        print(f"whisper-max-backend: {message}", file=sys.stderr, flush=True)
        with _clock(name, about_seconds):
            yield
    else:
        yield
    _log.info("compiled %s in %.0f s", name, time.monotonic() - started)


@contextlib.contextmanager
def _clock(name: str, about_seconds: float) -> Iterator[None]:
    """A bar on standard error that fills with the seconds, and waits when they were too few."""
    done = threading.Event()
    bar = tqdm(
        total=about_seconds,
        desc=name,
        bar_format="{desc} |{bar:20}| {elapsed}",
        file=sys.stderr,
        leave=False,
    )
    started = time.monotonic()

    def tick() -> None:
        while not done.wait(0.5):
            bar.n = min(time.monotonic() - started, about_seconds)
            bar.refresh()

    thread = threading.Thread(target=tick, name="whisper-max-backend-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        bar.close()
