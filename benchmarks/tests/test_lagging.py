"""Average lagging, against what its definition gives by hand."""

from __future__ import annotations

import pytest

from benchmarks.live.lagging import Lagging, Passage, lagging

PASSAGES = [Passage(0.0, 4.0, "one two three four"), Passage(6.0, 2.0, "five six")]
WORDS = ["one", "two", "three", "four", "five", "six"]


def test_words_that_keep_pace() -> None:
    """Each word comes half a second after it could begin at the earliest."""
    pytest.importorskip("omnisteval", reason="comes with the extra `bench`")
    ideal = [0.0, 1.0, 2.0, 3.0, 6.0, 7.0]
    spoken = [(word, time, time + 0.5) for word, time in zip(WORDS, ideal, strict=True)]
    assert lagging(PASSAGES, spoken, 8.0) == Lagging(yaal=0.5, laal=0.5)


def test_words_that_come_at_the_end() -> None:
    """Whoever waits for all of a passage is behind by its length."""
    pytest.importorskip("omnisteval", reason="comes with the extra `bench`")
    ends = [4.0] * 4 + [8.0] * 2
    spoken = [(word, time, time) for word, time in zip(WORDS, ends, strict=True)]
    found = lagging(PASSAGES, spoken, 8.0)
    assert found is not None
    assert found.laal == 3.0  # the passages' lengths, 4 and 2 seconds, on average


def test_without_omnisteval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.live.lagging.find_spec", lambda name: None)
    assert lagging(PASSAGES, [("one", 1.0, 1.0)], 8.0) is None
