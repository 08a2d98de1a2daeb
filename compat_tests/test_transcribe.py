"""Every recording through both models, beam 5 and greedy: each token as the reference gives it."""

from __future__ import annotations

import io
import itertools

import pytest

from compat_tests.support.compare import Transcription, assert_same
from compat_tests.support.models import (
    check,
    our_model,
    our_transcription,
    reference_model,
    reference_transcription,
)
from compat_tests.support.recordings import RECORDINGS, audio_file

pytestmark = pytest.mark.slow

# Recordings in another language, or several, are for the multilingual model.
ENGLISH = [
    name
    for name, recording in RECORDINGS.items()
    if recording.language == "en" or name in ("music", "silence")
]
MULTILINGUAL = [name for name in RECORDINGS if name not in ("bilingual", "two_minutes")]
LONG = ("dialogue", "long_pauses")
"""Greedy searches of these are the small model's, and so are all of "two_minutes": with the other,
the reference takes minutes."""


@pytest.mark.parametrize("beam_size", [5, 1])
@pytest.mark.parametrize("recording", ENGLISH)
def test_english_model(recording: str, beam_size: int) -> None:
    check("tiny.en", recording, beam_size=beam_size)


@pytest.mark.parametrize(
    ("recording", "beam_size"),
    [(name, 5) for name in MULTILINGUAL] + [(name, 1) for name in MULTILINGUAL if name not in LONG],
)
def test_multilingual_model(recording: str, beam_size: int) -> None:
    # The language is detected: probabilities of all languages are compared too.
    check("base", recording, beam_size=beam_size)


@pytest.mark.parametrize("model", ["tiny.en", "base"])
def test_default_options(model: str) -> None:
    """No option given: equal as far as nothing is sampled, which clear speech hardly is."""
    expected, actual = reference_transcription(model, "jfk"), our_transcription(model, "jfk")
    greedy = list(itertools.takewhile(lambda s: s.temperature == 0.0, expected.segments))
    assert greedy
    assert_same(
        Transcription(greedy, expected.info),
        Transcription(actual.segments[: len(greedy)], actual.info),
        f"{model}, defaults",
    )


def test_sources_of_audio() -> None:
    """A path, a file object and a stream of bytes are read as the reference reads them."""
    path = audio_file("command.flac")
    segments, info = reference_model("tiny.en").transcribe(str(path), temperature=0.0)
    expected = Transcription(list(segments), info)
    with open(path, "rb") as file:
        for source in (str(path), file, io.BytesIO(path.read_bytes())):
            segments, info = our_model("tiny.en").transcribe(source, temperature=0.0)
            assert_same(expected, Transcription(list(segments), info), type(source).__name__)


def test_segments_come_as_they_are_ready() -> None:
    """`transcribe` gives a generator: nothing is decoded before it is asked for."""
    segments, _ = our_model("tiny.en").transcribe(str(audio_file("dialogue.opus")), beam_size=1)
    assert iter(segments) is segments
    first = next(segments)
    assert first.id == 1
    assert first.text.strip()
    segments.close()
