"""Soaks one model with many threads: ``python -m compat_tests.fuzz.threads --minutes 30``.

Every thread transcribes one recording after another, with options, wrong arguments and abandoned
generators mixed at random. What a call gives must be what it gave alone, before the threads began;
the memory must stay flat, and there must always be some thread that goes on.

The command runs with one heap for all threads (`MALLOC_ARENA_MAX=1`): glibc otherwise makes up to
eight for each processor and keeps tens of megabytes in each, which hides what the program holds.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import json
import os
import random
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import click
import numpy as np

from compat_tests.support.memory import memory
from compat_tests.support.models import model_directory, subject
from compat_tests.support.recordings import audio_file, load

SETTLED = 1 / 6
"""The share of the time in which memory may grow: buffers, caches and heaps reach their sizes."""
ALLOWED_MB = 64
"""Growth of the memory after that, and what may be left of it when all threads have ended."""
STUCK_SECONDS = 120
DROPPED = 0.2
"""The share of calls whose generator is abandoned after the first segment."""

_OPTIONS: dict[str, dict[str, Any]] = {
    "beams": {"beam_size": 5},
    "greedy": {"beam_size": 1},
    "words": {"word_timestamps": True},
    "vad": {"vad_filter": True},
    "plain": {"without_timestamps": True, "beam_size": 2, "patience": 2.0},
    "prompted": {"initial_prompt": "A speech, in full sentences.", "beam_size": 1},
    "clipped": {"clip_timestamps": "1,4", "beam_size": 3},
    "repetitive": {"repetition_penalty": 1.2, "no_repeat_ngram_size": 3, "length_penalty": 0.8},
}


@dataclass(frozen=True)
class Job:
    """A call; `run` yields what it gives, piece by piece, or raises."""

    name: str
    run: Callable[[Any], Iterator[Any]]

    def outcome(self, model: Any, most: int | None = None) -> list[Any]:
        """What the call gives, or its first `most` pieces; an exception is a piece, too."""
        pieces: list[Any] = []
        try:
            for piece in self.run(model):
                pieces.append(piece)
                if len(pieces) == most:
                    break
        except Exception as error:
            pieces.append((type(error).__name__, str(error)))
        return pieces


def jobs(names: tuple[str, ...], multilingual: bool) -> list[Job]:
    """Every option on every recording, and calls with wrong arguments."""
    made = [
        _transcription(name, kind, options, batched=False)
        for name in names
        for kind, options in _OPTIONS.items()
    ]
    made += [_transcription(name, "batched", {"batch_size": 4}, batched=True) for name in names]
    if multilingual:
        options = {"language": None, "task": "translate", "beam_size": 1}
        made += [_transcription(name, "translated", options, batched=False) for name in names]
    made += [Job(f"wrong: {name}", run) for name, run in _wrong().items()]
    return made


def _transcription(name: str, kind: str, options: dict[str, Any], batched: bool) -> Job:
    options = {"language": "en", "temperature": 0.0, **options}
    found = next((path for path in audio_file("").glob(f"{name}.*")), None)
    audio = load(name) if found is None else str(found)

    def run(model: Any) -> Iterator[Any]:
        asked = subject().BatchedInferencePipeline(model) if batched else model
        segments, info = asked.transcribe(audio, **options)
        for segment in segments:
            words = [(word.word, word.start, word.end) for word in segment.words or ()]
            yield (info.language, segment.start, segment.end, segment.tokens, words)

    return Job(f"{name}: {kind}", run)


def _wrong() -> dict[str, Callable[[Any], Iterator[Any]]]:
    """Calls that raise."""

    def transcribe(audio: Any, **options: Any) -> Callable[[Any], Iterator[Any]]:
        return lambda model: iter(list(model.transcribe(audio, **options)[0]))

    def generate(shape: tuple[int, ...], prompt: list[Any], **options: Any) -> Any:
        features = np.zeros(shape, np.float32)
        return lambda model: iter(model.model.generate(features, [prompt], **options))

    start = ["<|startoftranscript|>"]
    return {
        "not a number": transcribe(np.full(16_000, np.nan, np.float32)),
        "two channels": transcribe(np.zeros((2, 16_000), np.float32)),
        "no such file": transcribe("no-such-file.wav"),
        "no such language": transcribe(np.zeros(16_000, np.float32), language="xx"),
        "mel bands": generate((1, 3, 3000), start),
        "rank": generate((80, 3000), start),
        "prompt": generate((1, 80, 3000), ["no such token"]),
        "beam size": generate((1, 80, 3000), start, beam_size=0),
        "alignment": lambda model: iter(
            model.model.align(np.zeros((1, 80, 3000), np.float32), [1], [[10**6]], 3000)
        ),
    }


class Soak:
    """Threads on one model, what they found, and how much memory there was."""

    def __init__(self, model: Any, chosen: list[Job], seed: int) -> None:
        """Run every job alone, for comparison."""
        self.done: Counter[str] = Counter()
        self.differences: list[str] = []
        self.memory_mb: list[float] = []
        self.left_mb = 0.0
        self._model = model
        self._alone = {job: job.outcome(model) for job in chosen}
        self._seed = seed
        self._progress = 0
        self._lock = threading.Lock()

    def run(self, threads: int, seconds: float) -> None:
        """Go on for a time. The process ends if no call does within `STUCK_SECONDS`."""
        before_mb = _needed_mb()
        end = time.monotonic() + seconds
        running = [
            threading.Thread(target=self._work, args=(number, end), daemon=True)
            for number in range(threads)
        ]
        for thread in running:
            thread.start()
        before, since = self._progress, time.monotonic()
        while any(thread.is_alive() for thread in running):
            time.sleep(min(1.0, seconds / 10))
            if time.monotonic() < end:
                self.memory_mb.append(memory("VmRSS") / 2**20)
            if self._progress != before:
                before, since = self._progress, time.monotonic()
            elif time.monotonic() - since > STUCK_SECONDS:
                faulthandler.dump_traceback(all_threads=True)
                print(f"no call ended within {STUCK_SECONDS} s", file=sys.stderr, flush=True)
                os._exit(1)
        self.left_mb = _needed_mb() - before_mb

    def growth_mb(self) -> float:
        """How much more memory there was in the second half of the time than in the first.

        Medians: at a given moment, it hangs on the calls that happen to run together.
        """
        settled = self.memory_mb[int(len(self.memory_mb) * SETTLED) :]
        half = len(settled) // 2
        return statistics.median(settled[half:]) - statistics.median(settled[:half] or [0.0])

    def _work(self, number: int, end: float) -> None:
        chance = random.Random(self._seed * 1000 + number)
        all_jobs = list(self._alone)
        while time.monotonic() < end:
            job = chance.choice(all_jobs)
            most = 1 if chance.random() < DROPPED else None
            found, expected = job.outcome(self._model, most), self._alone[job][:most]
            with self._lock:
                self._progress += 1
                self.done["dropped" if most else job.name.partition(": ")[2]] += 1
                if found != expected:
                    self.differences.append(f"{job.name}: {found} instead of {expected}")


def _needed_mb() -> float:
    """Memory after the allocator has given back what nobody uses."""
    gc.collect()
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
    return memory("VmRSS") / 2**20


@click.command()
@click.option("--threads", default=64, show_default=True)
@click.option("--minutes", default=30.0, show_default=True)
@click.option("--model", default="base", type=click.Choice(["tiny.en", "base"]), show_default=True)
@click.option("--compute-type", default="float32", show_default=True)
@click.option("--seed", type=int, help="Of the order of calls; random if not given.")
def main(threads: int, minutes: float, model: str, compute_type: str, seed: int | None) -> None:
    """Soak a model on the CPU of Linux. A line of JSON sums up; the exit status is 1 on failure."""
    if "MALLOC_ARENA_MAX" not in os.environ:  # glibc reads it when a process starts
        command = [sys.executable, "-m", "compat_tests.fuzz.threads", *sys.argv[1:]]
        os.execve(sys.executable, command, {**os.environ, "MALLOC_ARENA_MAX": "1"})
    seed = random.randrange(1 << 30) if seed is None else seed
    loaded = subject().WhisperModel(
        str(model_directory(model)), device="cpu", compute_type=compute_type
    )
    multilingual = model == "base"
    names = ("jfk", "command", "austen", "beckett", "silence", "music")
    others = ("french", "bilingual") if multilingual else ()
    soak = Soak(loaded, jobs((*names, *others), multilingual), seed)
    soak.run(threads, minutes * 60)
    for difference in soak.differences[:20]:
        click.echo(difference, err=True)
    growth = soak.growth_mb()
    click.echo(
        json.dumps(
            {
                "threads": threads,
                "minutes": minutes,
                "model": f"{model}, {compute_type}",
                "seed": seed,
                "calls": soak.done.total(),
                "of each": dict(sorted(soak.done.items())),
                "different": len(soak.differences),
                "memory_mb": [round(m) for m in soak.memory_mb[::60]],
                "growth_mb": round(growth, 1),
                "left_mb": round(soak.left_mb, 1),
            }
        )
    )
    sys.exit(bool(soak.differences) or max(growth, soak.left_mb) > ALLOWED_MB)


if __name__ == "__main__":
    main()
