"""Comparison of two transcriptions (probabilities and word times closely) or checkpoints."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from whisper_max_backend.engine.checkpoint.load import Checkpoint

PROBABILITY = 1e-3  # absolute, also for average log probabilities
WORD_TIME = 0.02  # seconds: one position of the encoder
_ROUNDING = 1e-9  # times are sums of multiples of 0.01 and 0.02


@dataclass(frozen=True)
class Transcription:
    """All segments and the info of one `transcribe` call."""

    segments: list[Any]
    info: Any

    @property
    def text(self) -> str:
        return "".join(segment.text for segment in self.segments)

    @property
    def tokens(self) -> list[int]:
        return [token for segment in self.segments for token in segment.tokens]

    @property
    def words(self) -> list[Any]:
        return [word for segment in self.segments for word in segment.words or ()]


def _differs(expected: Any, actual: Any, tolerance: float) -> bool:
    if expected is None or actual is None:
        return expected is not actual
    # Not "difference > tolerance": NaN has to be a difference.
    return not abs(expected - actual) <= tolerance + _ROUNDING


def _token_difference(expected: list[int], actual: list[int]) -> str | None:
    if expected == actual:
        return None
    pairs = zip(expected, actual, strict=False)
    shorter = min(len(expected), len(actual))
    at = next((i for i, (a, b) in enumerate(pairs) if a != b), shorter)
    return (
        f"token {at}: expected {expected[at : at + 5]} ..., got {actual[at : at + 5]} ... "
        f"after {expected[max(0, at - 3) : at]} ({len(expected)} and {len(actual)} tokens)"
    )


def _word_differences(expected: list[Any] | None, actual: list[Any] | None) -> Iterator[str]:
    if expected is None or actual is None:
        if expected is not actual:
            yield f"words: expected {expected}, got {actual}"
        return
    if [word.word for word in expected] != [word.word for word in actual]:
        yield f"words: expected {[w.word for w in expected]}, got {[w.word for w in actual]}"
        return
    for i, (one, other) in enumerate(zip(expected, actual, strict=True)):
        limits = (("start", WORD_TIME), ("end", WORD_TIME), ("probability", PROBABILITY))
        for field, tolerance in limits:
            a, b = getattr(one, field), getattr(other, field)
            if _differs(a, b, tolerance):
                yield f"word {i} {one.word!r}, {field}: expected {a}, got {b}"


def segment_differences(expected: Any, actual: Any) -> Iterator[str]:
    """What differs between two segments, the most telling first."""
    tokens = _token_difference(list(expected.tokens), list(actual.tokens))
    if tokens is not None:
        yield f"{tokens}\n    expected {expected.text!r}\n    got      {actual.text!r}"
    elif expected.text != actual.text:
        yield f"text: expected {expected.text!r}, got {actual.text!r}"
    # With words, the segment's limits are theirs, and the next window starts where one ends.
    time = 0.0 if expected.words is None else WORD_TIME
    for field, tolerance in (
        ("id", 0),
        ("seek", round(time * 100)),
        ("start", time),
        ("end", time),
        ("temperature", 0.0),
        ("avg_logprob", PROBABILITY),
        ("no_speech_prob", PROBABILITY),
        ("compression_ratio", 0.0),
    ):
        a, b = getattr(expected, field), getattr(actual, field)
        if _differs(a, b, tolerance):
            yield f"{field}: expected {a}, got {b}"
    yield from _word_differences(expected.words, actual.words)


def info_differences(expected: Any, actual: Any) -> Iterator[str]:
    """What differs between two TranscriptionInfo."""
    if expected.language != actual.language:
        yield f"language: expected {expected.language!r}, got {actual.language!r}"
    for field, tolerance in (
        ("language_probability", PROBABILITY),
        ("duration", 0.0),
        ("duration_after_vad", 0.0),
    ):
        a, b = getattr(expected, field), getattr(actual, field)
        if _differs(a, b, tolerance):
            yield f"{field}: expected {a}, got {b}"
    yield from language_differences(expected.all_language_probs, actual.all_language_probs)
    for field in ("transcription_options", "vad_options"):
        first, second = (_fields(getattr(info, field)) for info in (expected, actual))
        for key in first.keys() | second.keys():
            if first.get(key) != second.get(key):
                yield f"{field}.{key}: expected {first.get(key)!r}, got {second.get(key)!r}"


def _fields(options: Any) -> dict[str, Any]:
    # vad_options is a dictionary, a dataclass or None, as it was given.
    if options is None or isinstance(options, dict):
        return options or {}
    return dataclasses.asdict(options)


def language_differences(
    expected: list[tuple[str, float]] | None, actual: list[tuple[str, float]] | None
) -> Iterator[str]:
    """What differs between two lists of language probabilities by language."""
    if expected is None or actual is None:
        if expected is not actual:
            yield f"all_language_probs: expected {expected}, got {actual}"
        return
    first, second = dict(expected), dict(actual)
    if first.keys() != second.keys():
        yield f"languages: expected {sorted(first)}, got {sorted(second)}"
        return
    for language, probability in first.items():
        if _differs(probability, second[language], PROBABILITY):
            yield f"probability of {language}: expected {probability}, got {second[language]}"
    if [p for _, p in actual] != sorted(second.values(), reverse=True):
        yield "all_language_probs: not sorted, best first"


def differences(expected: Transcription, actual: Transcription) -> Iterator[str]:
    """What differs between two transcriptions, in the order of time."""
    yield from info_differences(expected.info, actual.info)
    for i, (one, other) in enumerate(zip(expected.segments, actual.segments, strict=False)):
        for difference in segment_differences(one, other):
            yield f"segment {i} ({one.start:.2f} s to {one.end:.2f} s), {difference}"
    counts = len(expected.segments), len(actual.segments)
    if counts[0] != counts[1]:
        longer = expected if counts[0] > counts[1] else actual
        first = longer.segments[min(counts)]
        side = "missing" if longer is expected else "extra"
        yield f"{counts[0]} segments expected, {counts[1]} got; {side}: {first.text!r}"


def assert_same(expected: Transcription, actual: Transcription, what: str) -> None:
    """Fail with the first few differences, and how many there are."""
    found = list(differences(expected, actual))
    if found:
        more = f"\n  and {len(found) - 4} more" if len(found) > 4 else ""
        lines = "".join(f"\n  {difference}" for difference in found[:4])
        raise AssertionError(f"unlike the reference ({what}):{lines}{more}")


def assert_same_checkpoint(left: Checkpoint, right: Checkpoint) -> None:
    """Two checkpoints agree in everything, the weights' types and order included."""
    assert left.dimensions == right.dimensions
    assert left.vocabulary == right.vocabulary
    assert left.config == right.config
    assert left.dtype == right.dtype
    assert list(left.weights) == list(right.weights)
    for name in left.weights:
        assert left.weights[name].dtype == right.weights[name].dtype
        np.testing.assert_array_equal(left.weights[name], right.weights[name])
