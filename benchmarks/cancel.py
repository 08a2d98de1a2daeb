"""``python -m benchmarks cancel``: how long a call goes on after it was cancelled.

The record's ``cancel`` has ``seconds``, one for each call, from `CancelToken.cancel` to the call's
error; their ``median`` and ``worst``; ``whole``, what a call takes that nobody cancels.
"""

from __future__ import annotations

import random
import statistics
import threading
import time
from pathlib import Path

import click
import numpy as np

from benchmarks.record import begin, results_option
from benchmarks.speech import speech
from benchmarks.timing import once
from compat_tests.support.models import model_directory
from whisper_max_backend import Cancelled, CancelToken, WhisperModel

MEDIAN_SECONDS = 0.05
WORST_SECONDS = 0.2
"""What a call on two cores with the `base` model may take to end."""


def seconds_to_end(model: WhisperModel, audio: np.ndarray, after: float) -> float | None:
    """From the cancelling of a call, so many seconds after its start; None if it ended before."""
    token = CancelToken()
    cancelled = [0.0]

    def cancel() -> None:
        cancelled[0] = time.perf_counter()
        token.cancel()

    timer = threading.Timer(after, cancel)
    timer.start()
    try:
        list(model.transcribe(audio, language="en", cancel=token)[0])
    except Cancelled:
        return time.perf_counter() - cancelled[0]
    finally:
        timer.join()
    return None


@click.command()
@click.option("--calls", default=200, show_default=True)
@click.option("--model", "name", default="base", type=click.Choice(["tiny.en", "base"]))
@click.option("--compute-type", default="int8", show_default=True)
@click.option("--recording", default="ten", show_default=True, help="Of the tests.")
@click.option("--seed", type=int, help="Of the moments; random if not given.")
@results_option
def main(
    calls: int, name: str, compute_type: str, recording: str, seed: int | None, results: Path
) -> None:
    """Cancel calls at random moments, and see how long they go on. 1 if it is too long."""
    seed = random.randrange(1 << 30) if seed is None else seed
    chance = random.Random(seed)
    audio = speech(recording)
    model = WhisperModel(str(model_directory(name)), device="cpu", compute_type=compute_type)
    record = begin("cancel", f"{name} {compute_type}")

    def whole() -> None:
        list(model.transcribe(audio, language="en")[0])

    whole()
    duration = once(whole)
    seconds: list[float] = []
    while len(seconds) < calls:
        found = seconds_to_end(model, audio, chance.uniform(0, duration))
        if found is not None:
            seconds.append(found)
    median, worst = statistics.median(seconds), max(seconds)
    record.found["cancel"] = {
        "model": name,
        "compute_type": compute_type,
        "recording": recording,
        "seed": seed,
        "whole": duration,
        "median": median,
        "worst": worst,
        "seconds": seconds,
    }
    print(f"{calls} calls: median {1000 * median:.1f} ms, worst {1000 * worst:.1f} ms")
    record.found["broken"] = [
        f"{what} of {1000 * found:.0f} ms is above {1000 * most:.0f} ms"
        for what, found, most in (
            ("a median", median, MEDIAN_SECONDS),
            ("a worst case", worst, WORST_SECONDS),
        )
        if found > most
    ]
    record.finish(results)


if __name__ == "__main__":
    main()
