"""How fast a corpus is transcribed, and whether time and memory grow with it as they should."""

from __future__ import annotations

import json
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from compat_tests.support.corpus import corpus, surroundings
from compat_tests.support.models import model_directory
from compat_tests.support.recordings import SAMPLING_RATE, load, write_wav
from whisper_max_backend import WhisperModel
from whisper_max_backend.comparison.meters import Meter, Sample
from whisper_max_backend.corpus.transcribe import Transcriber

LEAST = 0.9
TOLERATED = 0.05
GROWN = 0.05
"""Share by which memory may be more at ten times the audio, or in the later half of a run."""
_PARTS = 20
"""Of the time of a run: the record has an actor's memory in each of them."""
_ROUNDS = 3
_NAMES = ("two_minutes", "dialogue", "austen", "moby", "jfk")
_EVERY = 0.5
"""Seconds between two looks for an actor."""
_OPTIONS = ("--compute-type", "int8", "--language", "en", "--threads", "2")


def overhead(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Half an hour of audio, by one actor and by `transcribe` in one process, in turns."""
    recordings = _repeated(folder / "recordings", 30)
    path = str(model_directory("base"))
    model = WhisperModel(path, device="cpu", compute_type="int8", cpu_threads=2)
    list(model.transcribe(load("jfk"), language="en")[0])
    alone, on_ray = [], []
    with surroundings() as environment:
        for number in range(_ROUNDS):
            begun = time.perf_counter()
            for file in sorted(recordings.iterdir()):
                list(model.transcribe(str(file), language="en")[0])
            alone.append(time.perf_counter() - begun)
            run = _run(environment, recordings, folder / f"out-{number}", "base")
            on_ray.append(run["elapsed_s"])
    ratio = statistics.median(alone) / statistics.median(on_ray)
    broken = [] if ratio >= LEAST else [f"{ratio:.3f} of the speed of one process"]
    return {"minutes": 30, "transcribe_s": alone, "corpus_s": on_ray, "ratio": ratio}, broken


def growth(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """A thousand minutes, and a hundred before and after them: a machine may change its pace.

    An actor's memory goes up and down with the recordings that it has in hand, and takes some
    minutes to come to its level. So the first tenth of the long run is left out, and the medians of
    the two halves of the rest are compared.
    """
    # An actor that compiles the model keeps 0.7 GB for it, which would hide growth.
    WhisperModel(str(model_directory("tiny.en")), device="cpu", compute_type="int8")
    runs = []
    with surroundings() as environment:
        for number, minutes in enumerate((100, 1000, 100)):
            recordings = _repeated(folder / f"recordings-{number}", minutes)
            with _actor_metered() as samples:
                run = _run(environment, recordings, folder / f"out-{number}", "tiny.en")
            runs.append({**run, "actor_memory_by_time": _medians(samples, _PARTS)})
    before, large, after = runs
    figures = ("speed", "driver_memory")
    ratio = {name: large[name] / statistics.mean((before[name], after[name])) for name in figures}
    level = large["actor_memory_by_time"][_PARTS // 10 :]
    earlier, later = level[: len(level) // 2], level[len(level) // 2 :]
    ratio["actor_memory"] = statistics.median(later) / statistics.median(earlier)
    broken = []
    if abs(ratio["speed"] - 1) > TOLERATED:
        broken.append(f"{ratio['speed']:.3f} of the speed at 100 minutes")
    for name in ("driver_memory", "actor_memory"):
        if ratio[name] > 1 + GROWN:
            broken.append(f"{name} grows to {ratio[name]:.3f} of it")
    return {"100_minutes": [before, after], "1000_minutes": large, "ratio": ratio}, broken


def _medians(samples: Sequence[Sample], parts: int) -> list[float]:
    """Of the memory [bytes] in as many parts of the time."""
    each = len(samples) // parts
    return [
        statistics.median(sample.memory for sample in samples[part * each : (part + 1) * each])
        for part in range(parts)
    ]


@contextmanager
def _actor_metered() -> Iterator[list[Sample]]:
    """What the only actor of a run uses while the block lasts; the list is filled at its end."""
    samples: list[Sample] = []
    over = threading.Event()

    def watch() -> None:
        actor = None
        while actor is None and not over.wait(_EVERY):
            actor = _actor()
        if actor is not None:
            with Meter(actor.pid) as meter:
                over.wait()
            samples.extend(meter.samples)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield samples
    finally:
        over.set()
        thread.join()


def _actor() -> psutil.Process | None:
    """The process of the only actor, if it is there."""
    title = f"ray::{Transcriber.__name__}"
    several = psutil.process_iter(["cmdline"])
    return next(
        (one for one in several if "".join(one.info["cmdline"] or ()).startswith(title)), None
    )


def _repeated(folder: Path, minutes: int) -> Path:
    """Files of this much audio, together: recordings of the tests again and again."""
    folder.mkdir()
    left = minutes * 60 * SAMPLING_RATE
    number = 0
    first: dict[tuple[str, int], Path] = {}
    while left > 0:
        name = _NAMES[number % len(_NAMES)]
        samples = load(name)[:left]
        path = folder / f"{number:05d}.wav"
        if (name, len(samples)) in first:
            path.hardlink_to(first[name, len(samples)])
        else:
            write_wav(path, samples)
            first[name, len(samples)] = path
        left -= len(samples)
        number += 1
    return folder


def _run(environment: dict[str, str], recordings: Path, out: Path, model: str) -> dict[str, Any]:
    """The figures of a run."""
    done = corpus(environment, recordings, "--out", out, *_OPTIONS, model=model)
    assert done.returncode == 0, done.stderr
    (line,) = (out / "runs.jsonl").read_text().splitlines()
    run: dict[str, Any] = json.loads(line)
    assert run["errors"] == 0
    return run
