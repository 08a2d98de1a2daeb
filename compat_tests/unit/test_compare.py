"""The comparison itself: equal things pass, and every kind of difference is found."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from faster_whisper.transcribe import Segment, TranscriptionInfo, Word
from faster_whisper.vad import VadOptions

from compat_tests.support.compare import Transcription, assert_same, differences


@pytest.fixture
def transcription() -> Transcription:
    words = [Word(0.0, 0.5, " Hello", 0.9), Word(0.5, 1.0, " there.", 0.8)]
    segment = Segment(1, 0, 0.0, 1.0, " Hello there.", [5, 6, 7], -0.2, 0.6, 0.01, words, 0.0)
    plain = Segment(2, 100, 1.0, 2.5, " Yes.", [8, 9], -0.2, 0.6, 0.01, None, 0.0)
    languages = [("en", 0.7), ("fr", 0.3)]
    options: Any = None
    info = TranscriptionInfo("en", 0.7, 2.5, 2.5, languages, options, VadOptions())
    return Transcription([segment, plain], info)


def test_equal(transcription: Transcription) -> None:
    assert list(differences(transcription, copy.deepcopy(transcription))) == []
    assert_same(transcription, copy.deepcopy(transcription), "nothing")


def test_within_the_tolerances(transcription: Transcription) -> None:
    other = copy.deepcopy(transcription)
    other.segments[0].avg_logprob += 9e-4
    other.segments[1].no_speech_prob -= 9e-4
    other.segments[0].words[1].end += 0.02
    other.info.language_probability -= 9e-4
    assert list(differences(transcription, other)) == []


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda t: t.segments[0].tokens.__setitem__(1, 60), "segment 0 .* token 1"),
        (lambda t: t.segments[0].tokens.append(60), "token 3: .*3 and 4 tokens"),
        (lambda t: setattr(t.segments[1], "text", " No."), "text: expected ' Yes.'"),
        (lambda t: setattr(t.segments[1], "end", 2.52), "end: expected 2.5"),
        (lambda t: setattr(t.segments[1], "avg_logprob", -0.21), "avg_logprob"),
        (lambda t: setattr(t.segments[1], "avg_logprob", float("nan")), "avg_logprob"),
        (lambda t: setattr(t.segments[1], "no_speech_prob", 0.02), "no_speech_prob"),
        (lambda t: setattr(t.segments[1], "compression_ratio", 0.61), "compression_ratio"),
        (lambda t: setattr(t.segments[1], "temperature", 0.2), "temperature"),
        (lambda t: setattr(t.segments[1], "words", []), "words"),
        (lambda t: setattr(t.segments[0].words[0], "word", " Hi"), "words"),
        (lambda t: setattr(t.segments[0].words[0], "end", 0.53), "word 0 ' Hello', end"),
        (lambda t: setattr(t.segments[0].words[0], "probability", 0.8), "probability"),
        (lambda t: t.segments.pop(), "2 segments expected, 1 got; missing: ' Yes.'"),
        (lambda t: setattr(t.info, "language", "fr"), "language"),
        (lambda t: setattr(t.info, "duration", 3.0), "duration"),
        (lambda t: setattr(t.info, "all_language_probs", None), "all_language_probs"),
        (lambda t: t.info.all_language_probs.reverse(), "best first"),
        (lambda t: setattr(t.info.vad_options, "threshold", 0.9), "vad_options.threshold"),
    ],
)
def test_differences(transcription: Transcription, change: Any, found: str) -> None:
    other = copy.deepcopy(transcription)
    change(other)
    with pytest.raises(AssertionError, match=f"(?s)unlike the reference .*{found}"):
        assert_same(transcription, other, "a test")
