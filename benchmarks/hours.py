"""``python -m benchmarks hours``: whether a live stream of many hours needs ever more memory.

Recordings are played again and again, as fast as they are transcribed, with pauses between them.
The record's ``memory_mb`` is the resident memory after each minute of audio; ``growth_mb`` how much
more it is in the last hour than in the second, by medians; ``real_time_factor`` the work for each
second of audio.
"""

from __future__ import annotations

import itertools
import statistics
import time
from pathlib import Path

import click
import numpy as np
from rich.progress import track

from benchmarks.accuracy.transcripts import TRANSCRIPTS
from benchmarks.record import begin, results_option
from benchmarks.speech import RATE, speech
from compat_tests.support.memory import memory
from compat_tests.support.models import model_directory
from whisper_max_backend import WhisperModel
from whisper_max_backend.live import LiveTranscriber

ALLOWED_MB = 20
"""What the last hour may have more than the second."""
_PAUSES = (0.5, 2.0, 20.0)
"""Seconds between recordings."""


def endless() -> itertools.cycle[np.ndarray]:
    """Seconds of speech and of pauses, again and again."""
    parts = [
        part
        for name, pause in zip(TRANSCRIPTS, itertools.cycle(_PAUSES), strict=False)
        for part in (speech(name), np.zeros(int(pause * RATE), np.float32))
    ]
    audio = np.concatenate(parts)
    return itertools.cycle(np.split(audio, range(RATE, len(audio), RATE)))


@click.command()
@click.option("--hours", default=8.0, show_default=True)
@click.option("--model", "name", default="tiny.en", type=click.Choice(["tiny.en", "base"]))
@click.option("--compute-type", default="int8", show_default=True)
@click.option(
    "--policy",
    default="alignatt",
    type=click.Choice(["alignatt", "local-agreement"]),
    show_default=True,
)
@results_option
def main(hours: float, name: str, compute_type: str, policy: str, results: Path) -> None:
    """Transcribe hours of one live stream, and watch the memory. 1 if it grows."""
    model = WhisperModel(str(model_directory(name)), device="cpu", compute_type=compute_type)
    live = LiveTranscriber(model, policy, language="en")  # type: ignore[arg-type]  # click has checked it
    record = begin("hours", f"{name} {compute_type} {policy}")
    pieces = endless()
    resident: list[float] = []
    words = 0
    begun = time.perf_counter()
    for _ in track(range(int(60 * hours)), "minutes of audio"):
        heard = 0
        while heard < 60 * RATE:
            piece = next(pieces)
            heard += len(piece)
            words += len(live.push(piece).committed)
        resident.append(memory("VmRSS") / 2**20)
    hour = min(60, len(resident) // 3)
    growth = statistics.median(resident[-hour:]) - statistics.median(resident[hour : 2 * hour])
    record.found |= {
        "hours": hours,
        "words": words,
        "memory_mb": [round(one, 1) for one in resident],
        "growth_mb": round(growth, 1),
        "real_time_factor": (time.perf_counter() - begun) / (3600 * hours),
    }
    print(f"{hours:g} hours, {words} words: {growth:+.1f} MB from the second hour to the last")
    record.found["broken"] = [f"memory grew by {growth:.1f} MB"] if growth > ALLOWED_MB else []
    record.finish(results)


if __name__ == "__main__":
    main()
