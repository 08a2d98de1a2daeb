"""How fast a corpus is transcribed, and whether time and memory grow with it as they should."""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import Any

from compat_tests.support.corpus import corpus, surroundings
from compat_tests.support.models import model_directory
from compat_tests.support.recordings import SAMPLING_RATE, load, write_wav
from whisper_max_backend import WhisperModel

LEAST = 0.9
TOLERATED = 0.05
GROWN = 0.05
"""Share by which memory may be more at ten times the audio."""
_ROUNDS = 3
_NAMES = ("two_minutes", "dialogue", "austen", "moby", "jfk")
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
    """A hundred minutes and a thousand."""
    with surroundings() as environment:
        small = _run(environment, _repeated(folder / "100", 100), folder / "out-100", "tiny.en")
        large = _run(environment, _repeated(folder / "1000", 1000), folder / "out-1000", "tiny.en")
    speed = large["speed"] / small["speed"]
    memory = {name: large[name] / small[name] for name in ("actor_memory", "driver_memory")}
    broken = [] if abs(speed - 1) <= TOLERATED else [f"{speed:.3f} of the speed at 100 minutes"]
    broken += [
        f"{name} grows to {ratio:.3f} of it" for name, ratio in memory.items() if ratio > 1 + GROWN
    ]
    return {"100_minutes": small, "1000_minutes": large, "speed": speed, "memory": memory}, broken


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
