"""Where a stream has speech, and how many words that allows."""

from __future__ import annotations

import numpy as np
import pytest
from faster_whisper.vad import get_vad_model

from compat_tests.support.randomness import rng
from compat_tests.support.recordings import SAMPLING_RATE, load
from whisper_max_backend.live import LiveWord
from whisper_max_backend.live.speech import SpeechDetector
from whisper_max_backend.live.words import said, within

FRAME_SECONDS = 512 / SAMPLING_RATE


@pytest.mark.parametrize("name", ["jfk", "austen", "music", "silence"])
@pytest.mark.parametrize("most", [100, 2000, 40_000])
def test_it_is_what_the_model_says_of_the_whole(name: str, most: int) -> None:
    """In pieces of any length."""
    samples = load(name)
    samples = samples[: len(samples) // 512 * 512]
    speech = np.flatnonzero(get_vad_model()(samples.copy()).ravel() >= 0.5)
    detector = SpeechDetector()
    seconds, start = 0.0, 0
    while start < len(samples):
        length = int(rng().integers(0, most))
        seconds += detector.push(samples[start : start + length])
        start += length
    assert seconds == pytest.approx(len(speech) * FRAME_SECONDS)
    assert detector.heard == pytest.approx((speech[-1] + 1) * FRAME_SECONDS if len(speech) else 0)


@pytest.mark.parametrize(
    ("most", "expected"), [(-3, 0), (0, 0), (4, 0), (5, 2), (11, 2), (12, 3), (99, 3)]
)
def test_words_within_a_number_of_letters(most: int, expected: int) -> None:
    """Punctuation is no letter; what follows a word that is too long is left out as well."""
    words = [LiveWord(text, 0, 0, 1) for text in (" Every", "...", " country")]
    assert within(words, most) == expected


@pytest.mark.parametrize("before", [" better.", ' better."', "一。"])
def test_thanks_into_the_silence_are_not_said(before: str) -> None:
    """Nor what follows them; the words of the sentence before are."""
    words = [LiveWord(before, 8, 9, 0.02), LiveWord(" Thank", 9.1, 9.2, 0.01)]
    words.append(LiveWord(" you.", 9.2, 9.2, 0.98))
    assert said(words, None, heard=9.4) == 1
    assert said(words[1:], words[0], heard=9.4) == 0


@pytest.mark.parametrize(
    ("before", "confidence", "heard"),
    [(" better,", 0.01, 9.4), (" better.", 0.2, 9.4), (" better.", 0.01, 9.8)],
    ids=["no new sentence", "sure", "speech"],
)
def test_other_last_words_are_said(before: str, confidence: float, heard: float) -> None:
    words = [LiveWord(" Thank", 9.1, 9.2, confidence), LiveWord(" you.", 9.2, 9.2, 0.98)]
    assert said(words, LiveWord(before, 8, 9, 0.9), heard) == 2
    assert said(words, None, heard) == 2
