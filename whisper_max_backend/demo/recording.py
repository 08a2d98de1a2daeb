"""A visitor's recording: how long it is, and its samples, within the limits of the page."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import BinaryIO

import av
import numpy as np

from ..audio import NoAudioStreamError, checked_audio

SAMPLING_RATE = 16_000


class RefusedRecording(ValueError):
    """A recording that the page does not take; the message is for the visitor."""


@dataclass(frozen=True)
class Limits:
    """What a visitor may send.

    Attributes:
        minutes: Of audio.
        megabytes: Of a file.
    """

    minutes: float
    megabytes: float

    def check_duration(self, seconds: float) -> None:
        """Raise RefusedRecording for more than the minutes allowed."""
        if seconds > self.minutes * 60:
            raise RefusedRecording(
                f"This recording is {describe_duration(seconds)} long, and at most "
                f"{describe_duration(self.minutes * 60)} are taken here: cut it, or start the "
                "page with a larger --max-minutes."
            )


def describe_duration(seconds: float) -> str:
    """Seconds in words, e.g. "11.0 s" or "2 min 5 s"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if rest else f"{minutes} min"


def measure_duration(file: BinaryIO, limits: Limits) -> float:
    """Seconds of sound in a file, counted from its packets and not from what its header claims.

    Raises:
        RefusedRecording: No sound, or too much of it.
    """
    seconds = Fraction(0)  # exact, for a recording as long as the limit
    file.seek(0)
    try:
        with av.open(file, mode="r", metadata_errors="ignore") as container:
            for packet in container.demux(container.streams.audio[0]):
                seconds += (packet.duration or 0) * packet.time_base
                limits.check_duration(float(seconds))
    except (IndexError, av.error.FFmpegError) as error:
        raise _unreadable(error) from error
    return float(seconds)


def read_samples(file: BinaryIO, limits: Limits) -> np.ndarray:
    """The samples of a file, float32 [samples] at 16 kHz, decoded as the reference decodes.

    Raises:
        RefusedRecording: As for `measure_duration`, or there are no samples.
    """
    measure_duration(file, limits)
    file.seek(0)
    try:
        samples = checked_audio(file, SAMPLING_RATE)
    except (NoAudioStreamError, av.error.FFmpegError) as error:
        raise _unreadable(error) from error
    limits.check_duration(len(samples) / SAMPLING_RATE)
    if not len(samples):
        raise RefusedRecording("This recording is empty: choose another.")
    return samples


def _unreadable(error: Exception) -> RefusedRecording:
    if isinstance(error, IndexError):
        return RefusedRecording("This file holds no sound: choose a recording, or a film with it.")
    reason = getattr(error, "strerror", None) or type(error).__name__
    return RefusedRecording(
        f"This file cannot be read as audio ({reason}): choose another, or convert it to WAV, "
        "FLAC, MP3 or Opus."
    )
