"""Word timestamps: the alignment pass, words and their times."""

from __future__ import annotations

from typing import Any

import pytest

from compat_tests.support.models import check

pytestmark = pytest.mark.slow

CASES: list[tuple[str, str, str, dict[str, Any]]] = [
    ("tiny", "tiny.en", "jfk", {}),
    ("tiny-beam-1", "tiny.en", "austen", {"beam_size": 1}),
    ("tiny-windows", "tiny.en", "two_minutes", {"beam_size": 1}),
    ("tiny-two-speakers", "tiny.en", "dialogue", {}),
    ("tiny-noisy", "tiny.en", "noisy", {}),
    ("tiny-short", "tiny.en", "very_short", {}),
    ("tiny-silence", "tiny.en", "silence", {}),
    ("tiny-music", "tiny.en", "music", {"beam_size": 1, "no_speech_threshold": None}),
    ("base", "base", "jfk", {}),
    ("base-windows", "base", "dialogue", {"beam_size": 1}),
    ("base-french", "base", "french", {}),
    ("base-russian", "base", "russian", {"beam_size": 1}),
    ("translate", "base", "french", {"task": "translate"}),
    ("vad", "tiny.en", "long_pauses", {"vad_filter": True}),
    ("vad-base", "base", "long_pauses", {"vad_filter": True, "beam_size": 1}),
    ("no-timestamps", "tiny.en", "austen", {"without_timestamps": True}),
    ("clips", "tiny.en", "dialogue", {"clip_timestamps": [4.0, 15.0, 20.0], "beam_size": 1}),
    ("prefix", "tiny.en", "austen", {"prefix": "And Mr. John", "beam_size": 1}),
    (
        "hallucinations",
        "tiny.en",
        "long_pauses",
        {"hallucination_silence_threshold": 2.0, "condition_on_previous_text": False},
    ),
    (
        "punctuation",
        "tiny.en",
        "dialogue",
        {"prepend_punctuations": "", "append_punctuations": "", "beam_size": 1},
    ),
]


@pytest.mark.parametrize(
    ("model", "recording", "options"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_words(model: str, recording: str, options: dict[str, Any]) -> None:
    expected = check(model, recording, word_timestamps=True, **options)
    if recording not in ("silence", "music"):
        assert expected.words
