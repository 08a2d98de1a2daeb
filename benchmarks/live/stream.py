"""What is played: recordings with transcripts, one after another."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faster_whisper
import numpy as np

from benchmarks.accuracy.errors import error_rate, words
from benchmarks.live.lagging import Passage
from benchmarks.speech import RATE

PAUSE_SECONDS = 1.0
"""Between two recordings of a stream."""


@dataclass(frozen=True)
class Stream:
    """What is played.

    Attributes:
        samples: Float32 ``[samples]`` at 16 kHz.
        passages: The recordings in it, with their transcripts.
        spoken: Words of the whole recording, transcribed at once, and when they end.
        offline_error_rate: Of these words.
    """

    samples: np.ndarray
    passages: list[Passage]
    spoken: list[tuple[str, float]]
    offline_error_rate: float

    @property
    def transcript(self) -> str:
        """What is said."""
        return " ".join(passage.transcript for passage in self.passages)

    @property
    def seconds(self) -> float:
        """How long it is."""
        return len(self.samples) / RATE


def made(model: Any, recordings: Sequence[tuple[np.ndarray, str]], language: str) -> Stream:
    """Recordings and their transcripts as one stream, with pauses."""
    pause = np.random.default_rng(0).normal(0, 1e-4, int(PAUSE_SECONDS * RATE)).astype(np.float32)
    samples = np.concatenate([part for audio, _ in recordings for part in (audio, pause)])
    lengths = [len(audio) / RATE for audio, _ in recordings]
    starts = np.cumsum([0.0, *(length + PAUSE_SECONDS for length in lengths)])
    passages = [
        Passage(float(start), length, " ".join(text.split()))
        for start, length, (_, text) in zip(starts, lengths, recordings, strict=False)
    ]
    segments, _ = model.transcribe(samples, language=language, word_timestamps=True)
    spoken = [
        (words(word.word), float(word.end)) for segment in segments for word in segment.words or ()
    ]
    transcript = " ".join(passage.transcript for passage in passages)
    offline = error_rate([transcript], [" ".join(text for text, _ in spoken)])
    return Stream(samples, passages, spoken, offline)


def from_manifest(manifest: Path, language: str) -> list[tuple[np.ndarray, str]]:
    """The recordings of a language that have a transcript, of a file with lines of JSON."""
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    return [
        (
            faster_whisper.decode_audio(str(manifest.parent / row["path"]), sampling_rate=RATE),
            row["transcript"],
        )
        for row in rows
        if row.get("language") == language and row.get("transcript")
    ]
