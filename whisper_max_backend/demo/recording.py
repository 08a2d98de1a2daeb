"""A visitor's recording: its samples, within the limits of the page."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from . import decoding

_AT_ONCE = threading.BoundedSemaphore(2)  # processes that decode


class RefusedRecording(ValueError):
    """A recording that the page does not take; the message is for the visitor."""


@dataclass(frozen=True)
class Limits:
    """What a visitor may send.

    Attributes:
        minutes: Of audio.
        megabytes: Of a file.
        speakers: Visitors who speak at once; 0: none may.
    """

    minutes: float
    megabytes: float
    speakers: int = 0


def describe_duration(seconds: float) -> str:
    """Seconds in words, e.g. "11.0 s" or "2 min 5 s"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if rest else f"{minutes} min"


def read_samples(file: BinaryIO, limits: Limits) -> np.ndarray:
    """The samples of a file, float32 [samples] at 16 kHz, decoded as the reference decodes.

    Another process decodes, up to the limit: this one reads nothing of the file.

    Args:
        file: On the disk, open for reading; its position is lost.

    Raises:
        RefusedRecording: The file cannot be read, or has no sound or too much of it.
    """
    os.lseek(file.fileno(), 0, os.SEEK_SET)  # a position that the process shares
    most_seconds = limits.minutes * 60
    command = [sys.executable, "-m", decoding.__name__, str(most_seconds)]
    with _AT_ONCE:
        try:
            done = subprocess.run(
                command,
                stdin=file,
                capture_output=True,
                timeout=decoding.patience(most_seconds),
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise _unreadable("it takes too long") from error
    if done.returncode == decoding.TOO_LONG:
        raise RefusedRecording(
            f"This recording is too long, at most {describe_duration(most_seconds)} are taken "
            "here: cut it, or start the page with a larger --max-minutes."
        )
    if done.returncode == decoding.NO_SOUND:
        raise RefusedRecording("This file holds no sound: choose a recording, or a film with it.")
    if done.returncode == decoding.UNREADABLE:
        raise _unreadable(done.stderr.decode(errors="replace").strip())
    if done.returncode:  # a signal: it asked for too much, or found a fault of the decoder
        raise _unreadable("its decoder failed")
    samples = np.frombuffer(done.stdout, np.int16)
    if not len(samples):
        raise RefusedRecording("This recording is empty: choose another.")
    return samples.astype(np.float32) / 32768


def _unreadable(reason: str) -> RefusedRecording:
    return RefusedRecording(
        f"This file cannot be read as audio ({reason}): choose another, or convert it to WAV, "
        "FLAC, MP3 or Opus."
    )
