"""From audio to text, from a folder to a model, and from nothing to the first text."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import faster_whisper
import pytest

import whisper_max_backend
from benchmarks.conftest import Pair
from benchmarks.paired import Timed, compare
from compat_tests.recordings import audio_file, load

RATE = 16_000

FIRST_TEXT = """
import sys
module = __import__(sys.argv[1])
model = module.WhisperModel(
    sys.argv[2], device="cpu", compute_type="float32", cpu_threads=int(sys.argv[4])
)
segments, _ = model.transcribe(sys.argv[3], language="en", temperature=0.0)
print(next(iter(segments)).text)
"""


def compare_texts(
    benchmark: Any,
    pair: Pair,
    ours: Callable[[], str],
    reference: Callable[[], str],
    seconds: float,
) -> None:
    """Both give the same text, and the reference needs at least as long."""
    assert ours() == reference()
    stock = Timed(reference, pair.threads)
    ratio = compare(benchmark, ours, stock, audio_seconds=seconds)
    assert ratio >= 1.0, f"stock faster-whisper is faster: {1 / ratio:.2f} times"


@pytest.mark.benchmark(group="end to end")
@pytest.mark.parametrize("beams", [5, 1])
@pytest.mark.parametrize("recording", ["jfk", "two_minutes"])
def test_transcribe(benchmark: Any, pair: Pair, recording: str, beams: int) -> None:
    audio = load(recording)

    def text(model: Any) -> str:
        segments, _ = model.transcribe(audio, language="en", beam_size=beams, temperature=0.0)
        return "".join(segment.text for segment in segments)

    compare_texts(
        benchmark,
        pair,
        lambda: text(pair.ours),
        lambda: text(pair.reference),
        len(audio) / RATE,
    )


@pytest.mark.benchmark(group="batched")
def test_batched(benchmark: Any, pair: Pair) -> None:
    """Eight windows at a time, beam 5."""
    audio = load("two_minutes")
    ours = whisper_max_backend.BatchedInferencePipeline(pair.ours)
    stock = faster_whisper.BatchedInferencePipeline(pair.reference)

    def text(pipeline: Any) -> str:
        segments, _ = pipeline.transcribe(audio, language="en", batch_size=8, temperature=0.0)
        return "".join(segment.text for segment in segments)

    compare_texts(benchmark, pair, lambda: text(ours), lambda: text(stock), len(audio) / RATE)


@pytest.mark.benchmark(group="load")
def test_load(benchmark: Any, pair: Pair) -> None:
    """A model from a folder that the system has in its cache, in a process with others."""

    def load_with(module: Any) -> Any:
        return module.WhisperModel(
            pair.path, device="cpu", compute_type="float32", cpu_threads=pair.threads
        )

    stock = Timed(lambda: load_with(faster_whisper), pair.threads)
    compare(benchmark, lambda: load_with(whisper_max_backend), stock)


@pytest.mark.benchmark(group="start to first text")
def test_start(benchmark: Any, pair: Pair) -> None:
    """A new process: imports, model, decoding of the file, first segment."""

    def first_text(module: str, threads: int) -> str:
        arguments = [module, pair.path, str(audio_file("jfk.flac")), str(threads)]
        command = [sys.executable, "-u", "-c", FIRST_TEXT, *arguments]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            text = process.stdout.readline()
            process.kill()  # how long a process takes to end is not measured
        return text

    def ours() -> str:
        return first_text("whisper_max_backend", 0)

    def reference() -> str:
        return first_text("faster_whisper", pair.threads)

    assert ours() == reference()
    compare(benchmark, ours, Timed(reference, pair.threads))
