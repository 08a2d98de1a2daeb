"""BatchedInferencePipeline: several windows in one call of the engine."""

from __future__ import annotations

from typing import Any

import faster_whisper
import numpy as np
import pytest
from faster_whisper.vad import VadOptions

import whisper_max_backend
from compat_tests.support.errors import same_error
from compat_tests.support.models import check, our_class, reference_model
from compat_tests.support.recordings import audio_file, load

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
    (
        "tiny-vad-options",
        "tiny.en",
        "long_pauses",
        {"vad_parameters": {"threshold": 0.6, "max_speech_duration_s": 5}, "chunk_length": 12},
    ),
    (
        "tiny-vad-object",
        "tiny.en",
        "long_pauses",
        {"vad_parameters": VadOptions(max_speech_duration_s=6, min_silence_duration_ms=300)},
    ),
    ("tiny-whole", "tiny.en", "jfk", {"vad_filter": False}),
    ("tiny-other-language", "tiny.en", "jfk", {"language": "de", "multilingual": True}),
    ("tiny-all-tokens", "tiny.en", "jfk", {"suppress_tokens": []}),
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
    (
        "base-language-of-several-windows",
        "base",
        "bilingual",
        {"language_detection_segments": 3, "language_detection_threshold": 1.0, "chunk_length": 7},
    ),
    ("base-language-of-silence", "base", "silence", {}),
    ("base-multilingual", "base", "bilingual", {"batch_size": 4, "multilingual": True, **SHORT}),
]


@pytest.mark.parametrize(
    ("model", "recording", "options"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_batched(model: str, recording: str, options: dict[str, Any]) -> None:
    expected = check(model, recording, batched=True, **options)
    if recording != "silence":
        assert expected.segments


@pytest.mark.parametrize(
    "options",
    [
        {"vad_filter": False},
        {"chunk": 30},
        {"vad_parameters": {"threshhold": 0.5}},
        {"language": "xx", "vad_filter": True},
        {"clip_timestamps": [{"begin": 0, "end": 5}]},
    ],
    ids=lambda options: " ".join(options),
)
def test_wrong_options(options: dict[str, Any]) -> None:
    """The reference's types of errors."""
    audio = load("two_minutes")
    stock = faster_whisper.BatchedInferencePipeline(reference_model("base"))
    ours = our_class("base", batched=True)
    same_error(
        lambda: stock.transcribe(audio.copy(), **options),
        lambda: ours.transcribe(audio, **options),
    )


def test_a_file_by_a_model_of_ctranslate2() -> None:
    """As ``whisper-max transcribe --batched --backend ctranslate2`` has it."""
    model, path = reference_model("tiny.en"), str(audio_file("jfk.flac"))
    pipelines = (
        whisper_max_backend.BatchedInferencePipeline,
        faster_whisper.BatchedInferencePipeline,
    )
    (ours, info), (stock, expected) = (pipeline(model).transcribe(path) for pipeline in pipelines)
    assert list(ours) == list(stock)
    assert info.duration_after_vad == expected.duration_after_vad


def test_the_callers_options_stay() -> None:
    """The reference removes an option from the dictionary that it was given."""
    given = {"threshold": 0.5, "max_speech_duration_s": 5}
    model = our_class("tiny.en", batched=True)
    _, info = model.transcribe(load("jfk"), vad_parameters=given, chunk_length=20)
    assert given == {"threshold": 0.5, "max_speech_duration_s": 5}
    assert info.vad_options.max_speech_duration_s == 20


def test_features_are_made_batch_by_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """So an hour of them is never in memory."""
    model = our_class("tiny.en", batched=True)
    extractor = type(model.model.feature_extractor)
    extract = extractor.__call__
    made: list[int] = []

    def counted(self: Any, samples: np.ndarray) -> np.ndarray:
        made.append(len(samples))
        features: np.ndarray = extract(self, samples)
        return features

    monkeypatch.setattr(extractor, "__call__", counted)
    segments, _ = model.transcribe(load("two_minutes"), batch_size=2)
    assert made == []
    next(iter(segments))
    assert len(made) == 2
