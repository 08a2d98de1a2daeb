"""Each guard on made-up segments, and what is told of what they did."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from faster_whisper.transcribe import Segment
from hypothesis import given
from hypothesis import strategies as st

from compat_tests.support.guards import (
    END_OF_TEXT,
    RATE,
    hearing,
    rounded,
    segment,
    spoken,
)
from whisper_max_backend.guards.coverage import Coverage, said_beside
from whisper_max_backend.guards.loops import Loops, longest_loop
from whisper_max_backend.guards.no_speech import NoSpeech
from whisper_max_backend.guards.prompts import prompt_tokens, prompts_without_refused
from whisper_max_backend.guards.speech import HeardSpeech
from whisper_max_backend.guards.times import Times
from whisper_max_backend.guards.transcription import GUARDS, chosen
from whisper_max_backend.guards.words import letters, share, words


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Callable[..., HeardSpeech]:
    return hearing(monkeypatch)


def never(start: float, end: float) -> str:
    raise AssertionError("nothing is to be decoded again")


# Names


@pytest.mark.parametrize(
    ("guards", "names"),
    [
        (True, set(GUARDS)),
        (False, set()),
        (None, set()),
        ([], set()),
        ("loops", {"loops"}),
        (("times", "coverage"), {"times", "coverage"}),
    ],
)
def test_names(guards: Any, names: set[str]) -> None:
    assert chosen(guards) == names


@pytest.mark.parametrize("guards", ["loop", ["loops", "silence"], [1]])
def test_unknown_names(guards: Any) -> None:
    with pytest.raises(ValueError, match="unknown guards .*: choose of no-speech, loops, times"):
        chosen(guards)


# Words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" That's it - 10 times!", ["thats", "it", "10", "times"]),
        ("東京は、晴れ。", list("東京は晴れ")),
        (" Сегодня é", ["сегодня", "é"]),
        ("...", []),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert words(text) == expected
    assert letters(text) == sum(map(str.isalnum, text))


def test_share() -> None:
    assert share(["a", "b", "c", "d"], ["a", "x", "c"]) == 0.5
    assert share([], ["a"]) == 1.0


# no-speech


def test_text_where_nobody_speaks(heard: Any) -> None:
    verdict = NoSpeech(heard(10, (5, 10, 1.0)), never).judge(segment(0, 2, " You"))
    assert verdict.kept is None
    assert "0.00 s of speech are heard for 3 letters" in verdict.reason
    assert "mean log-probability -0.20, no-speech probability 0.10" in verdict.reason


def test_text_where_somebody_speaks(heard: Any) -> None:
    said = segment(5, 7, " What is said in two seconds")
    assert NoSpeech(heard(10, (5, 7, 1.0)), never).judge(said) == (said, None, "")


def test_more_text_than_can_be_said(heard: Any) -> None:
    """In half a second."""
    speech = heard(10, (5, 5.5, 1.0))
    assert NoSpeech(speech, never).judge(segment(4, 8, " " + 15 * "a")).kept
    assert NoSpeech(speech, never).judge(segment(4, 8, " " + 20 * "a")).kept is None


@pytest.mark.parametrize(
    ("probability", "log_probability", "no_speech", "kept"),
    [
        (0.15, -0.2, 0.1, True),  # a telephone: hardly heard, and certain
        (0.15, -0.2, 0.95, False),  # Whisper itself doubts
        (0.15, -0.65, 0.1, False),
        (0.6, -0.78, 0.1, True),
        (0.6, -1.1, 0.1, False),
        (0.05, -0.01, 0.0, False),
    ],
)
def test_uncertain_text_needs_clear_speech(
    heard: Any, probability: float, log_probability: float, no_speech: float, kept: bool
) -> None:
    said = segment(2, 4, " Hello there", avg_logprob=log_probability, no_speech_prob=no_speech)
    guard = NoSpeech(heard(10, (2, 4, probability)), lambda start, end: said.text)
    assert (guard.judge(said).kept is said) == kept


@pytest.mark.parametrize(
    ("text", "other", "kept"),
    [
        (" That's it.", "", False),
        (" That's it.", " Good morning, my old friend.", False),
        (" Please call Stella.", " Please call her.", True),
        (" Shen.", " Shin.", True),
        ("天気は晴れ", "天気が晴れ", True),
    ],
)
def test_uncertain_text_is_decoded_again(heard: Any, text: str, other: str, kept: bool) -> None:
    asked: list[tuple[float, float]] = []

    def again(start: float, end: float) -> str:
        asked.append((start, end))
        return other

    verdict = NoSpeech(heard(10, (1, 5, 1.0)), again).judge(segment(2, 4, text, avg_logprob=-0.9))
    assert (verdict.kept is not None) == kept
    assert asked == [pytest.approx((1.7, 4.3))]
    if not kept:
        assert f"decoded alone it is {other.strip()!r}" in verdict.reason


def test_uncertain_text_of_long_speech_stays(heard: Any) -> None:
    said = segment(0, 8, " What somebody says under loud noise", avg_logprob=-0.9)
    assert NoSpeech(heard(10, (0, 8, 1.0)), never).judge(said).kept is said


def test_speech_is_looked_for_once_and_only_when_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[np.ndarray] = []

    def probabilities(samples: np.ndarray) -> np.ndarray:
        asked.append(samples)
        return np.ones(len(samples) // 512, np.float32)

    monkeypatch.setattr("whisper_max_backend.guards.speech.speech_probabilities", probabilities)
    speech = HeardSpeech(np.zeros(RATE, np.float64), RATE)
    assert not asked
    assert speech.seconds(0, 1, 0.5) == pytest.approx(1, abs=0.05)
    assert speech.seconds(-5, 99, 0.5) == pytest.approx(1, abs=0.05)
    assert speech.seconds(2, 1, 0.5) == speech.seconds(3, 4, 0.5) == 0
    (samples,) = asked
    assert samples.dtype == np.float32
    assert len(samples) == RATE


def test_a_recording_of_no_samples() -> None:
    assert HeardSpeech(np.empty(0, np.float32), RATE).seconds(0, 1, 0.5) == 0


# loops


def looped(texts: Sequence[str], alone: str = " Something else") -> list[bool]:
    """Which of these segments, one after another, are refused."""
    guard = Loops(END_OF_TEXT, 2.4, lambda start, end: alone)
    return [guard.judge(segment(0, 2, text)).kept is None for text in texts]


def test_a_segment_that_comes_again_and_again() -> None:
    assert looped(5 * [" Thank you very much."]) == [False, False, False, True, True]


def test_segments_that_come_again_in_turns() -> None:
    assert looped(4 * [" Thank you.", " Good night."]) == [*(7 * [False]), True]


def test_an_announcement_that_is_said_again_and_again() -> None:
    """Its audio alone has the same text."""
    announcement = " Please hold the line."
    assert looped(6 * [announcement], alone=" Please hold the line") == 6 * [False]


def test_what_people_say_again() -> None:
    assert looped([" No, no, no."]) == [False]
    assert looped([" Ask not", " what you can do,", " ask what", " what you can do"]) == 4 * [False]
    assert looped([" Thank you.", " Thank you.", " Thank you."]) == 3 * [False]


def test_a_loop_within_a_segment() -> None:
    guard = Loops(END_OF_TEXT, None, never)
    verdict = guard.judge(segment(0, 30, " I know" + 20 * " that you know"))
    assert verdict.kept is None
    assert "a phrase of 14 tokens comes again and again" in verdict.reason


def test_a_text_that_compresses_well() -> None:
    text = "".join(f" Number {number}, please hold the line." for number in range(30))
    assert Loops(END_OF_TEXT, None, never).judge(segment(0, 30, text)).kept
    verdict = Loops(END_OF_TEXT, 2.4, lambda start, end: "").judge(segment(0, 30, text))
    assert verdict.kept is None
    assert "the text compresses" in verdict.reason
    assert Loops(END_OF_TEXT, 2.4, lambda start, end: text).judge(segment(0, 30, text)).kept


def test_a_loop_ends() -> None:
    assert looped([*(5 * [" Thank you very much."]), " Something else is said now."])[-1] is False


@given(st.lists(st.integers(0, 3), max_size=60), st.integers(0, 60))
def test_longest_loop_is_one(tokens: list[int], new: int) -> None:
    length, run = longest_loop(tokens, min(new, len(tokens)))
    if run == 0:
        return
    needed = max(4 * length, 16)
    assert any(
        all(tokens[i] == tokens[i - length] for i in range(start + length, start + needed))
        for start in range(len(tokens) - needed + 1)
    )


@given(st.lists(st.integers(0, 3), min_size=4, max_size=9), st.integers(4, 8))
def test_longest_loop_finds_them(phrase: list[int], times: int) -> None:
    length, run = longest_loop([9, *(times * phrase), 8], 0)
    assert run >= times * len(phrase)
    assert len(phrase) % length == 0


# times


def encode(text: str) -> list[int]:
    return [ord(letter) for letter in text]


def test_a_segment_after_the_end() -> None:
    guard = Times(5.0, encode)
    assert guard.judge(segment(4.9, 30, " Hello")).kept
    verdict = guard.judge(segment(7, 14, " Hello"))
    assert verdict.kept is None
    assert verdict.reason == "it begins at 7.00 s, after the end (5.00 s)"


def test_a_segment_in_no_time() -> None:
    guard = Times(60.0, encode)
    assert guard.judge(segment(4, 4.2, " What?")).kept
    verdict = guard.judge(segment(4, 4.2, " What nobody can say in so little time."))
    assert (verdict.kept, verdict.reason) == (None, "30 letters in 0.20 s")


def test_words_in_no_time_are_cut_out() -> None:
    said = spoken(
        *((0.0, 0.5, " Hello"), (0.5, 1.2, " there,"), (1.2, 1.2, " alone"), (1.2, 2.0, " now.")),
        *((9.98, 9.98, " Thank"), (9.98, 9.98, " you"), (9.98, 10.0, " all")),
    )
    verdict = Times(10.0, encode).judge(said)
    assert verdict.kept is not None
    assert verdict.refused is not None
    assert verdict.kept.text == " Hello there, alone now."
    assert (verdict.kept.start, verdict.kept.end) == (0.0, 2.0)
    assert verdict.kept.tokens == encode(verdict.kept.text)
    assert [word.word for word in verdict.refused.words] == [" Thank", " you", " all"]
    assert verdict.reason == "3 words in no time, 0 after the end (10.00 s)"


def test_words_after_the_end() -> None:
    verdict = Times(2.0, encode).judge(spoken((0.0, 0.5, " Hello"), (2.5, 3.0, " there")))
    assert verdict.kept is not None
    assert verdict.refused is not None
    assert (verdict.kept.text, verdict.refused.text) == (" Hello", " there")


def test_all_words_in_no_time() -> None:
    said = spoken((1.0, 1.0, " a"), (1.0, 1.0, " b"), (1.0, 1.0, " c"))
    assert Times(10.0, encode).judge(said).kept is None


# coverage


def coverage(
    speech: HeardSpeech, *regions: tuple[float, float], decode: Any = None, seconds: float = 60
) -> Coverage:
    samples = np.arange(seconds * RATE, dtype=np.float32)
    return Coverage(speech, samples, RATE, None, regions or ((0.0, seconds),), decode)


def test_stretches_of_a_gap(heard: Any) -> None:
    speech = heard(60, (10, 12, 1.0), (13, 15, 1.0), (20, 20.5, 1.0), (30, 40, 0.9), (50, 55, 0.3))
    assert rounded(coverage(speech).stretches(0, 60)) == [(9.6, 15.4), (29.6, 40.4)]
    assert rounded(coverage(speech).stretches(14.5, 35)) == [(29.6, 35)]
    assert rounded(coverage(speech).stretches(14.5, 29)) == []
    assert rounded(coverage(speech, (0, 11.5), (32, 34)).stretches(0, 60)) == [
        (9.6, 11.5),
        (32, 34),
    ]


def test_segments_have_the_times_of_the_recording(heard: Any) -> None:
    asked: list[np.ndarray] = []

    def decode(samples: np.ndarray) -> list[Segment]:
        asked.append(samples)
        return [spoken((0.5, 1.0, " Hello"), (1.0, 1.5, " there")), segment(2, 30, " you")]

    found, last = coverage(heard(60), decode=decode).decode(20.0, 22.5)
    assert (last.start, last.end) == (22.0, 22.5)
    assert (asked[0][0], len(asked[0])) == (20 * RATE, 2.5 * RATE)
    assert (found.start, found.end, found.seek) == (20.5, 21.5, 2000)
    assert [(word.start, word.end) for word in found.words] == [(20.5, 21.0), (21.0, 21.5)]


def test_words_of_the_segments_beside() -> None:
    found = segment(10, 12, " And so, my fellow")
    assert said_beside(found, [segment(12.5, 20, " And so my fellow Americans, ask not")])
    far = segment(40, 45, " And so my fellow Americans")
    assert said_beside(found, [segment(3, 9, " or else"), far]) is None
    assert said_beside(found, [segment(7, 10, found.text)]) is None, "it is said twice"


# Prompts


def test_prompts_have_no_refused_text() -> None:
    assert prompt_tokens([1, 2, 3]) == [1, 2, 3]
    with prompts_without_refused([([3, 4], False), ([5], True), ([6, 7], False), ([8], True)]):
        assert prompt_tokens([1, 2, 3, 4, 5, 6, 7, 8]) == [1, 2, 5, 8]
        assert prompt_tokens([5, 6, 7, 8]) == [5, 8]
        assert prompt_tokens([]) == []
