"""Where the command `live` hears: a file that is played, standard input, a microphone.

Each gives pieces of samples with their sampling rate. What comes by itself is read by a thread of
its own, so that nothing is missed while the pieces before it are transcribed.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Generator
from queue import Queue
from threading import Thread
from typing import Any

import click
import numpy as np

from .inputs import expand

RATE = 16_000
"""Samples a second of a file and of standard input."""

Heard = Generator[tuple[np.ndarray, int], None, None]

_log = logging.getLogger("whisper_max_backend")


def played(source: str, in_real_time: bool) -> Heard:
    """A file, a tenth of a second at a time.

    Raises:
        ClickException: It is no file that can be read, or there are several.
    """
    (found, *more) = expand([source])
    if found.path is None or more:
        problem = found.problem if found.path is None else "there are several files, give one"
        raise click.ClickException(f"{found.name}: {problem}")
    from ..audio import checked_audio

    try:
        samples = checked_audio(str(found.path), RATE)
    except (OSError, ValueError) as error:
        raise click.ClickException(f"{found.name}: {error}") from error
    return _paced(samples, in_real_time)


def _paced(samples: np.ndarray, in_real_time: bool) -> Heard:
    begun = time.monotonic()
    for start in range(0, len(samples), RATE // 10):
        piece = samples[start : start + RATE // 10]
        if in_real_time:
            time.sleep(max(0.0, begun + (start + len(piece)) / RATE - time.monotonic()))
        yield piece, RATE


def standard_input() -> Heard:
    """16 bits, mono, 16 kHz, until it ends."""
    pieces: Queue[np.ndarray | None] = Queue()

    def read() -> None:
        left = b""
        while content := sys.stdin.buffer.read(RATE // 5):
            content = left + content
            whole = len(content) // 2 * 2
            content, left = content[:whole], content[whole:]
            pieces.put(np.frombuffer(content, np.int16))
        pieces.put(None)

    Thread(target=read, name="standard input", daemon=True).start()
    return _as_they_come(pieces, RATE)


def microphone() -> Heard:
    """The system's default microphone, at its own rate, without end.

    Raises:
        ClickException: sounddevice is not installed, or there is no microphone.
    """
    try:
        import sounddevice
    except (ImportError, OSError) as error:  # OSError: the library PortAudio is missing
        raise click.ClickException(
            "a microphone needs sounddevice: install whisper-max-backend[microphone], and on Linux "
            f"the system's package libportaudio2 ({error})"
        ) from error
    pieces: Queue[np.ndarray | None] = Queue()

    def take(samples: np.ndarray, count: int, when: Any, status: Any) -> None:
        if status.input_overflow:
            _log.warning("the microphone gave more audio than was read: some is lost")
        pieces.put(samples[:, 0].copy())

    try:
        rate = int(sounddevice.query_devices(kind="input")["default_samplerate"])
        stream = sounddevice.InputStream(rate, channels=1, dtype="int16", callback=take)
        stream.start()
    except (sounddevice.PortAudioError, ValueError) as error:
        raise click.ClickException(f"there is no microphone that can be used: {error}") from error
    return _until_closed(stream, _as_they_come(pieces, rate))


def _until_closed(stream: Any, heard: Heard) -> Heard:
    with stream:
        yield from heard


def _as_they_come(pieces: Queue[np.ndarray | None], rate: int) -> Heard:
    """Those that have come in the meantime as one."""
    while True:
        come = [pieces.get(), *(pieces.get() for _ in range(pieces.qsize()))]
        found = [piece for piece in come if piece is not None]
        if found:
            yield np.concatenate(found), rate
        if len(found) < len(come):
            return
