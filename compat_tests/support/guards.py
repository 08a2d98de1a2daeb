"""Segments and speech that are made up, for the tests of guards."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Any

import numpy as np
import pytest
from faster_whisper.transcribe import Segment, Word

from whisper_max_backend.guards.speech import HeardSpeech

RATE = 16_000
END_OF_TEXT = 1000


def segment(start: float, end: float, text: str, **changes: Any) -> Segment:
    values: dict[str, Any] = {
        **{"id": 1, "seek": 0, "tokens": tokens_of(text), "avg_logprob": -0.2},
        **{"compression_ratio": 1.0, "no_speech_prob": 0.1, "words": None, "temperature": 0.0},
    }
    return Segment(start=start, end=end, text=text, **{**values, **changes})


def one_by_one(*segments: Segment) -> Generator[Segment]:
    yield from segments


def tokens_of(text: str) -> list[int]:
    """A number for each letter, between two timestamps."""
    return [END_OF_TEXT + 1, *(ord(letter) % END_OF_TEXT for letter in text), END_OF_TEXT + 2]


def spoken(*words: tuple[float, float, str], **changes: Any) -> Segment:
    listed = [Word(start, end, word, 0.9) for start, end, word in words]
    text = "".join(word.word for word in listed)
    return segment(listed[0].start, listed[-1].end, text, words=listed, **changes)


def hearing(monkeypatch: pytest.MonkeyPatch) -> Callable[..., HeardSpeech]:
    """Makes speech of the given probabilities between the given seconds of a recording."""

    def make(seconds: float, *speech: tuple[float, float, float]) -> HeardSpeech:
        probabilities = np.zeros(int(np.ceil(seconds * RATE / 512)), np.float32)
        for start, end, probability in speech:
            probabilities[round(start * RATE / 512) : round(end * RATE / 512)] = probability

        def heard(samples: np.ndarray) -> np.ndarray:
            assert int(np.ceil(len(samples) / 512)) == len(probabilities)
            return probabilities

        monkeypatch.setattr("whisper_max_backend.guards.speech.speech_probabilities", heard)
        return HeardSpeech(np.zeros(int(seconds * RATE), np.float32), RATE)

    return make


def rounded(stretches: Iterator[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(round(start, 1), round(end, 1)) for start, end in stretches]
