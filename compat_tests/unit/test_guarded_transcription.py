"""A transcription that guards look at, with made-up segments."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Generator, Sequence
from typing import Any

import numpy as np
import pytest
from faster_whisper.transcribe import Segment, TranscriptionInfo
from faster_whisper.vad import VadOptions

from compat_tests.support.guards import (
    END_OF_TEXT,
    RATE,
    hearing,
    one_by_one,
    rounded,
    segment,
    tokens_of,
)
from whisper_max_backend.guards.prompts import prompt_tokens
from whisper_max_backend.guards.refusals import RefusedSegment
from whisper_max_backend.guards.speech import HeardSpeech
from whisper_max_backend.guards.transcription import GUARDS, GuardedTranscription, Recording


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Callable[..., HeardSpeech]:
    return hearing(monkeypatch)


class Tokenizer:
    """As much of a tokenizer as guards need."""

    def token_to_id(self, token: str) -> int:
        return END_OF_TEXT


def info(duration: float, **changes: Any) -> TranscriptionInfo:
    options: Any = type("Options", (), {})()
    options.clip_timestamps, options.compression_ratio_threshold = "0", 2.4
    made = TranscriptionInfo("en", 1.0, duration, duration, None, options, None)
    return dataclasses.replace(made, **changes)


def transcription(
    names: Sequence[str], seconds: float, decode: Any = None, **changes: Any
) -> GuardedTranscription:
    samples = np.zeros(int(seconds * RATE), np.float32)
    recording = Recording(samples, RATE, Tokenizer(), decode)  # type: ignore[arg-type]
    return GuardedTranscription(names, recording, info(seconds, **changes))


def test_refused_segments_are_told(heard: Any, caplog: pytest.LogCaptureFixture) -> None:
    heard(10, (0, 3, 1.0))
    made = transcription(["no-speech"], 10)
    source = [segment(0, 3, " Hello there"), segment(5, 7, " You"), segment(0, 3, " and more")]
    with caplog.at_level(logging.INFO, "whisper_max_backend"):
        kept = list(made.segments(one_by_one(*source)))
    assert [(each.id, each.text) for each in kept] == [(1, " Hello there"), (2, " and more")]
    (out,) = made.info.refused
    assert isinstance(out, RefusedSegment)
    assert (out.text, out.start, out.end, out.guard) == (" You", 5, 7, "no-speech")
    assert "0.00 s of speech" in out.reason
    assert "no-speech refused ' You' at 5.00 s: 0.00 s of speech" in caplog.text


def test_speech_between_segments_is_found_in_its_place(heard: Any) -> None:
    heard(60, (0, 3, 1.0), (10, 13, 1.0), (20, 23, 1.0), (40, 43, 1.0), (50, 53, 1.0))
    texts = iter([" in the middle", " behind", ""])

    def decode(samples: np.ndarray, language: str) -> list[Segment]:
        assert language == "en"
        text = next(texts)
        return [segment(0.4, 3.4, text)] if text else []

    made = transcription(GUARDS, 60, decode)
    source = [segment(0, 3, " The first"), segment(20, 23, " The second")]
    kept = list(made.segments(one_by_one(*source)))
    assert [(each.id, each.text) for each in kept] == [
        (1, " The first"),
        (2, " in the middle"),
        (3, " The second"),
        (4, " behind"),
    ]
    assert kept[1].start == pytest.approx(10, abs=0.05)
    assert [each.text for each in made.info.recovered] == [" in the middle", " behind"]
    assert rounded(iter(made.info.uncovered)) == [(49.6, 53.4)]


def test_a_refused_loop_is_decoded_again_where_somebody_speaks(heard: Any) -> None:
    heard(30, (0, 30, 1.0))
    loop = segment(3, 30, " I" + 30 * " that you know")
    made = transcription(GUARDS, 30, lambda samples, language: [segment(0, 25, " What was said")])
    kept = list(made.segments(one_by_one(segment(0, 3, " At first"), loop)))
    assert [each.text for each in kept] == [" At first", " What was said"]
    assert [each.guard for each in made.info.refused] == ["loops"]


def test_what_is_found_again_is_judged(heard: Any) -> None:
    heard(30, (0, 3, 1.0), (10, 13, 1.0))

    def decode(samples: np.ndarray, language: str) -> list[Segment]:
        return [segment(0, 0.1, 200 * "a"), segment(9, 12, " after its end")]

    made = transcription(GUARDS, 30, decode)
    assert len(list(made.segments(one_by_one(segment(0, 3, " At first"))))) == 1
    assert [each.guard for each in made.info.refused] == ["times", "times"]
    assert len(made.info.uncovered) == 1


def test_the_callers_vad_decides_what_is_speech(heard: Any) -> None:
    heard(30, (10, 13, 0.7))
    asked: list[int] = []

    def decode(samples: np.ndarray, language: str) -> list[Segment]:
        asked.append(len(samples))
        return []

    strict = transcription(["coverage"], 30, decode, vad_options=VadOptions(threshold=0.8))
    assert list(strict.segments(one_by_one())) == []
    assert not asked


def test_segments_come_as_they_are_made(heard: Any) -> None:
    heard(30, (0, 30, 1.0))
    asked: list[str] = []
    closed: list[bool] = []

    def source() -> Generator[Segment]:
        try:
            for text in (" One", " Two", " Three"):
                asked.append(text)
                yield segment(0, 3, text)
        finally:
            closed.append(True)

    made = transcription(["no-speech", "loops", "times"], 30)
    segments = made.segments(source())
    assert next(segments).text == " One"
    assert asked == [" One"]
    segments.close()
    assert closed == [True]


def test_the_next_window_is_not_told_what_was_refused(heard: Any) -> None:
    heard(30, (0, 3, 1.0))
    prompts: list[list[int]] = []

    def source() -> Generator[Segment]:
        said: list[int] = []
        for each in (segment(0, 3, " Hello"), segment(9, 12, " You"), segment(0, 3, " end")):
            prompts.append(prompt_tokens(list(said)))
            said += each.tokens
            yield each

    assert len(list(transcription(["no-speech"], 30).segments(source()))) == 2
    assert prompts == [[], tokens_of(" Hello"), tokens_of(" Hello")]
    assert prompt_tokens([1]) == [1]


@pytest.mark.parametrize(
    ("clips", "seconds"),
    [
        ("0", [(0, 30)]),
        ("", [(0, 30)]),
        ("5,10,20", [(5, 10), (20, 30)]),
        ([5.0, 10.0, 20.0, 40.0], [(5, 10), (20, 30)]),
        ([{"start": 5 * RATE, "end": 10 * RATE}], [(5, 10)]),
        ([], [(0, 30)]),
    ],
)
def test_nothing_is_looked_for_outside_of_clips(
    heard: Any, clips: Any, seconds: list[tuple[float, float]]
) -> None:
    heard(30, (0, 30, 1.0))
    asked: list[int] = []

    def decode(samples: np.ndarray, language: str) -> list[Segment]:
        asked.append(round(len(samples) / RATE))
        return []

    made = transcription(["coverage"], 30, decode)
    made.info.transcription_options.clip_timestamps = clips
    made = GuardedTranscription(
        ["coverage"],
        Recording(np.zeros(30 * RATE, np.float32), RATE, Tokenizer(), decode),  # type: ignore[arg-type]
        made.info,
    )
    assert list(made.segments(one_by_one())) == []
    assert asked == [end - start for start, end in seconds]
