"""Errors of texts, as ``python -m benchmarks accuracy`` counts them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.accuracy.command import Text, figures_of
from benchmarks.accuracy.errors import Errors, without_worst
from benchmarks.accuracy.transcripts import Transcribed, from_manifest
from compat_tests.support.recordings import write_wav


@pytest.mark.parametrize(
    ("reference", "hypothesis", "language", "wrong", "units"),
    [
        ("Go forward, ten meters.", "go forward 10 metres", "en", 1, 4),
        ("今天天气很好。", "今天天氣好", "zh", 2, 6),
        ("今天天气很好。", "今天天氣好", None, 1, 1),
        ("", "Thank you.", "en", 2, 0),
        ("", "", None, 0, 0),
    ],
)
def test_errors(
    reference: str, hypothesis: str, language: str | None, wrong: int, units: int
) -> None:
    assert Errors.of(reference, hypothesis, language) == Errors(wrong, units)


def test_the_worst_hundredth_is_rounded_up() -> None:
    found = [Errors(wrong, 10) for wrong in (0, 7, 1)]
    assert sorted(one.wrong for one in without_worst(found)) == [0, 1]
    assert len(without_worst([Errors(0, 1)] * 101)) == 99


def test_manifest(tmp_path: Path) -> None:
    rows = [
        {"path": "a/one.wav", "text": "One.", "language": "en", "group": "numbers"},
        {"path": "a/one.wav", "transcript": None, "language": None, "category": "sounds"},
    ]
    (tmp_path / "a").mkdir()
    write_wav(tmp_path / "a" / "one.wav", np.zeros(1600, np.float32))
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text("\n".join(map(json.dumps, rows)))
    first, second = from_manifest(manifest)
    assert (first.transcript, first.language, first.group) == ("One.", "en", "numbers")
    assert (second.transcript, second.language) == (None, None)
    assert second.group == "sounds, no language"
    assert first.samples.shape == (1600,)


def test_figures_of_a_side() -> None:
    """Recordings without a transcript count where texts are compared with float32's only."""
    samples = np.zeros(1, np.float32)
    recordings = [
        Transcribed("one", samples, "a b c d", group="first"),
        Transcribed("two", samples, "今天", "zh", group="second"),
        Transcribed("three", samples, None, None, group="third"),
    ]
    exact = [Text("a b c e", (1,)), Text("今天", (2,)), Text("x y", (3,))]
    heard = [Text("a b c d", (1,)), Text("今日", (4,)), Text("x", (3,))]
    found = figures_of("int8", heard, exact, recordings)
    assert found.errors == Errors(1, 6)
    assert found.by_group == {"first": Errors(0, 4), "second": Errors(1, 2)}
    assert found.from_float32 == Errors(3, 8)
    assert found.equal_tokens == pytest.approx(2 / 3)
