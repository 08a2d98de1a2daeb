"""BatchedInferencePipeline: several windows in one call of the engine."""

from __future__ import annotations

from typing import Any

import pytest

from compat_tests.support.models import check

pytestmark = pytest.mark.slow

# Ten-second windows make 13 of the two minutes: a full batch of 8 and a rest.
SHORT = {"chunk_length": 10}

CASES: list[tuple[str, str, str, dict[str, Any]]] = [
    ("tiny-1", "tiny.en", "dialogue", {"batch_size": 1}),
    ("tiny-4", "tiny.en", "two_minutes", {"batch_size": 4}),
    ("tiny-8", "tiny.en", "two_minutes", {"batch_size": 8, **SHORT}),
    ("tiny-4-greedy", "tiny.en", "two_minutes", {"batch_size": 4, "beam_size": 1, **SHORT}),
    (
        "tiny-8-words",
        "tiny.en",
        "two_minutes",
        {"batch_size": 8, "word_timestamps": True, "beam_size": 1},
    ),
    (
        "tiny-4-timestamps",
        "tiny.en",
        "long_pauses",
        {"batch_size": 4, "without_timestamps": False, **SHORT},
    ),
    (
        "tiny-clips",
        "tiny.en",
        "dialogue",
        {
            "batch_size": 4,
            "vad_filter": False,
            "clip_timestamps": [
                {"start": 0.0, "end": 4.3},
                {"start": 4.3, "end": 15.0},
                {"start": 15.0, "end": 34.5},
            ],
        },
    ),
    (
        "tiny-options",
        "tiny.en",
        "dialogue",
        {
            "batch_size": 8,
            "initial_prompt": "An appointment.",
            "hotwords": "Keller",
            "repetition_penalty": 1.1,
            "no_repeat_ngram_size": 3,
            "patience": 2.0,
            "length_penalty": 0.6,
            "chunk_length": 8,
        },
    ),
    ("tiny-silence", "tiny.en", "silence", {"batch_size": 4}),
    ("base-1", "base", "french", {"batch_size": 1, "beam_size": 1}),
    ("base-4", "base", "dialogue", {"batch_size": 4, **SHORT}),
    ("base-8", "base", "russian", {"batch_size": 8, "beam_size": 1, "chunk_length": 5}),
    (
        "base-8-words",
        "base",
        "dialogue",
        {"batch_size": 8, "beam_size": 1, "word_timestamps": True, "language": "en", **SHORT},
    ),
    (
        "base-translate",
        "base",
        "french",
        {"batch_size": 4, "task": "translate", "language": "fr", **SHORT},
    ),
    ("base-multilingual", "base", "bilingual", {"batch_size": 4, "multilingual": True, **SHORT}),
]


@pytest.mark.parametrize(
    ("model", "recording", "options"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_batched(model: str, recording: str, options: dict[str, Any]) -> None:
    expected = check(model, recording, batched=True, **options)
    if recording != "silence":
        assert expected.segments
