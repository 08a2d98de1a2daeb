"""From audio to text, from a folder to a model, and from nothing to the first text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import faster_whisper
import pytest

import whisper_max_backend
from benchmarks.cpu.conftest import Pair
from benchmarks.cpu.turns import Timed, Turns
from benchmarks.new_process import first_text, peak_bytes
from benchmarks.peers.faster_whisper import heard
from benchmarks.speech import RATE, speech
from compat_tests.support.recordings import audio_file
from whisper_max_backend.engine.compile.cpu_target import describe_kernels

GOAL = {"float32": 1.0, "int8": 2.5 if "VNNI" in describe_kernels() else 1.3}
"""How many times as fast as the reference a transcription has to be."""


def check_texts(
    turns: Turns, pair: Pair, ours: Callable[[], str], reference: Callable[[], str]
) -> None:
    """Both give a text, in float32 the same."""
    texts = ours(), reference()
    turns.info["same_text"] = texts[0] == texts[1]
    assert all(texts)
    if pair.compute_type == "float32":
        assert texts[0] == texts[1]


def compare_texts(
    turns: Turns,
    pair: Pair,
    ours: Callable[[], str],
    reference: Callable[[], str],
    seconds: float,
) -> None:
    """As `check_texts`, and the reference needs so much longer."""
    check_texts(turns, pair, ours, reference)
    stock = Timed(reference, pair.threads)
    ratio = turns.compare(ours, stock, audio_seconds=seconds)
    assert ratio >= GOAL[pair.compute_type], f"{ratio:.2f} times as fast as stock faster-whisper"


@pytest.mark.benchmark(group="end to end")
@pytest.mark.parametrize("beams", [5, 1])
@pytest.mark.parametrize("recording", ["jfk", "ten", "two_minutes"])
def test_transcribe(turns: Turns, pair: Pair, recording: str, beams: int) -> None:
    audio = speech(recording)
    compare_texts(
        turns,
        pair,
        lambda: heard(pair.ours, audio, beams),
        lambda: heard(pair.reference, audio, beams),
        len(audio) / RATE,
    )


@pytest.mark.benchmark(group="batched")
@pytest.mark.parametrize("recording", ["ten", "two_minutes"])
def test_batched(turns: Turns, pair: Pair, recording: str) -> None:
    """Eight windows at a time, beam 5."""
    audio = speech(recording)
    ours = whisper_max_backend.BatchedInferencePipeline(pair.ours)
    stock = faster_whisper.BatchedInferencePipeline(pair.reference)

    def text(pipeline: Any) -> str:
        segments, _ = pipeline.transcribe(audio, language="en", batch_size=8, temperature=0.0)
        return "".join(segment.text for segment in segments)

    compare_texts(turns, pair, lambda: text(ours), lambda: text(stock), len(audio) / RATE)


@pytest.mark.benchmark(group="load")
@pytest.mark.parametrize("weights", ["packed", "found"])
def test_load(turns: Turns, pair: Pair, weights: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model from a folder that the system has in its cache, in a process with others.

    Our weights are packed, as at a model's first load, or found in the cache folder.
    """
    if weights == "packed":
        monkeypatch.setenv("WHISPER_MAX_WEIGHTS_GB", "0")

    def load_with(module: Any) -> Any:
        return module.WhisperModel(
            pair.path, device="cpu", compute_type=pair.compute_type, cpu_threads=pair.threads
        )

    stock = Timed(lambda: load_with(faster_whisper), pair.threads)
    turns.compare(lambda: load_with(whisper_max_backend), stock)


@pytest.mark.benchmark(group="peak memory")
@pytest.mark.parametrize("recording", ["jfk", "ten"])
def test_memory(turns: Turns, pair: Pair, recording: str) -> None:
    """The most that a new process had resident when it has loaded a model and transcribed."""

    def peak(module: str, threads: int) -> int:
        return peak_bytes(module, pair.path, recording, str(threads), pair.compute_type)

    ours = turns.benchmark.pedantic(lambda: peak("whisper_max_backend", 0))
    reference = min(peak("faster_whisper", threads) for threads in pair.stock)
    turns.info.update(ours_bytes=ours, reference_bytes=reference, ratio=reference / ours)


@pytest.mark.benchmark(group="start to first text")
def test_start(turns: Turns, pair: Pair) -> None:
    """A new process: imports, model, decoding of the file, first segment."""

    def text(module: str, threads: int) -> str:
        file = str(audio_file("jfk.flac"))
        return first_text(module, pair.path, file, str(threads), pair.compute_type)[0]

    def ours() -> str:
        return text("whisper_max_backend", 0)

    def reference() -> str:
        return text("faster_whisper", pair.threads)

    check_texts(turns, pair, ours, reference)
    turns.compare(ours, Timed(reference, pair.threads))
