"""Options of `transcribe`, alone and together, on recordings where they matter."""

from __future__ import annotations

from typing import Any

import pytest

from compat_tests.support.models import check, reference_transcription
from compat_tests.support.recordings import load

pytestmark = pytest.mark.slow

# Longer than half the text context, so that it is cut.
LONG_PROMPT = " ".join(
    f"Item {i}: a whale, a ship and the watery part of the world." for i in range(40)
)

CASES: list[tuple[str, str, str, dict[str, Any]]] = [
    # condition_on_previous_text and the prompt
    ("no-condition", "tiny.en", "dialogue", {"condition_on_previous_text": False}),
    (
        "no-condition-beam-1",
        "base",
        "long_pauses",
        {"condition_on_previous_text": False, "beam_size": 1},
    ),
    ("initial-prompt", "tiny.en", "moby", {"initial_prompt": "Glossary: Ishmael, Pequod, Ahab."}),
    (
        "initial-prompt-base",
        "base",
        "moby",
        {"initial_prompt": "Glossary: Ishmael.", "language": "en"},
    ),
    ("initial-prompt-ids", "tiny.en", "jfk", {"initial_prompt": [843, 11, 523, 616, 5891]}),
    ("long-initial-prompt", "tiny.en", "moby", {"initial_prompt": LONG_PROMPT, "beam_size": 1}),
    (
        "prefix",
        "tiny.en",
        "austen",
        {"prefix": "And Mr. John", "condition_on_previous_text": False},
    ),
    ("prefix-base", "base", "jfk", {"prefix": "And so, my friends", "beam_size": 1}),
    ("hotwords", "tiny.en", "dialogue", {"hotwords": "Harbour Keller Rotterdam"}),
    ("hotwords-base", "base", "austen", {"hotwords": "Dashwood", "language": "en", "beam_size": 1}),
    (
        "prompt-prefix-hotwords",
        "tiny.en",
        "moby",
        {"initial_prompt": "A novel.", "prefix": "Call me", "hotwords": "Ishmael"},
    ),
    # windows
    ("clips-string", "tiny.en", "austen", {"clip_timestamps": "2.5,9,12"}),
    ("clips-list", "tiny.en", "dialogue", {"clip_timestamps": [0.0, 4.2, 9.7, 15.0, 30.0, 34.0]}),
    ("clips-base", "base", "french", {"clip_timestamps": [1.0, 12.0, 20.0], "beam_size": 1}),
    ("no-timestamps", "tiny.en", "austen", {"without_timestamps": True}),
    ("no-timestamps-base", "base", "russian", {"without_timestamps": True, "beam_size": 1}),
    ("late-start", "tiny.en", "long_pauses", {"max_initial_timestamp": 10.0, "beam_size": 1}),
    ("start-at-zero", "tiny.en", "jfk", {"max_initial_timestamp": 0.0}),
    ("chunk-length", "tiny.en", "austen", {"chunk_length": 10, "beam_size": 1}),
    ("max-new-tokens", "tiny.en", "austen", {"max_new_tokens": 12, "clip_timestamps": "0,20"}),
    # speech or not
    ("vad", "tiny.en", "long_pauses", {"vad_filter": True}),
    ("vad-base", "base", "long_pauses", {"vad_filter": True, "beam_size": 1}),
    (
        "vad-parameters",
        "tiny.en",
        "long_pauses",
        {
            "vad_filter": True,
            "vad_parameters": {"min_silence_duration_ms": 300, "speech_pad_ms": 100},
            "beam_size": 1,
        },
    ),
    ("vad-silence", "tiny.en", "silence", {"vad_filter": True}),
    ("no-speech", "tiny.en", "silence", {"no_speech_threshold": 0.1, "log_prob_threshold": None}),
    ("all-is-speech", "tiny.en", "music", {"no_speech_threshold": None, "beam_size": 1}),
    # search
    ("repetition-penalty", "tiny.en", "moby", {"repetition_penalty": 1.1}),
    (
        "repetition-penalty-loop",
        "tiny.en",
        "music",
        {"repetition_penalty": 1.1, "beam_size": 1, "no_speech_threshold": None},
    ),
    ("repetition-penalty-base", "base", "beckett", {"repetition_penalty": 1.1}),
    ("no-repeat-3", "tiny.en", "austen", {"no_repeat_ngram_size": 3}),
    ("no-repeat-3-loop", "tiny.en", "music", {"no_repeat_ngram_size": 3}),
    ("no-repeat-3-base", "base", "french", {"no_repeat_ngram_size": 3}),
    ("patience", "tiny.en", "moby", {"patience": 2.0}),
    ("patience-base", "base", "jfk", {"patience": 2.0}),
    ("length-penalty", "tiny.en", "dialogue", {"length_penalty": 0.6}),
    ("length-penalty-base", "base", "austen", {"length_penalty": 0.6, "language": "en"}),
    ("wide-beam", "tiny.en", "beckett", {"beam_size": 8, "patience": 1.5}),
    (
        "search-together",
        "tiny.en",
        "austen",
        {
            "repetition_penalty": 1.1,
            "no_repeat_ngram_size": 3,
            "patience": 2.0,
            "length_penalty": 0.6,
            "initial_prompt": "And Mr. John Dashwood had then leisure to consider.",
        },
    ),
    # suppressed tokens
    ("nothing-suppressed", "tiny.en", "jfk", {"suppress_tokens": [], "suppress_blank": False}),
    ("suppressed", "tiny.en", "jfk", {"suppress_tokens": [-1, 1391, 1499], "beam_size": 1}),
    ("suppressed-only", "base", "jfk", {"suppress_tokens": [11, 13], "beam_size": 1}),
    # task
    ("translate", "base", "french", {"task": "translate"}),
    (
        "translate-beam-1",
        "base",
        "russian",
        {"task": "translate", "beam_size": 1, "language": "ru"},
    ),
    (
        "translate-no-timestamps",
        "base",
        "french",
        {"task": "translate", "without_timestamps": True, "beam_size": 1, "language": "fr"},
    ),
]


@pytest.mark.parametrize(
    ("model", "recording", "options"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_option(model: str, recording: str, options: dict[str, Any]) -> None:
    check(model, recording, **options)


# Options that must change the outcome: otherwise their case above compares nothing new.
EFFECTIVE = {
    "prefix-base",
    "clips-string",
    "no-timestamps",
    "max-new-tokens",
    "no-speech",
    "suppressed",
    "translate",
}


@pytest.mark.parametrize("name", sorted(EFFECTIVE))
def test_option_matters(name: str) -> None:
    """The reference itself gives another text with the option than without it."""
    _, model, recording, options = next(case for case in CASES if case[0] == name)
    options = {"temperature": 0.0, **options}
    plain = {"temperature": 0.0, "beam_size": options.get("beam_size", 5)}
    with_option = reference_transcription(model, recording, **options)
    without = reference_transcription(model, recording, **plain)
    assert with_option.tokens != without.tokens


def test_recordings_are_not_changed() -> None:
    """The arrays that all tests share cannot be written to."""
    assert not load("jfk").flags.writeable
