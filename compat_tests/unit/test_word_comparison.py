"""How texts are compared word by word."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whisper_max_backend.comparison.words import Span, compare_words

TEXTS = st.lists(st.sampled_from(["a", "b", "c", "d", "—"]), max_size=12).map(" ".join)


def edits(reference: list[str], hypothesis: list[str]) -> int:
    """The edit distance, by the textbook."""
    row = list(range(len(hypothesis) + 1))
    for i, expected in enumerate(reference, start=1):
        previous, row = row, [i]
        for j, said in enumerate(hypothesis, start=1):
            row.append(min(previous[j] + 1, row[-1] + 1, previous[j - 1] + (expected != said)))
    return row[-1]


@given(TEXTS, TEXTS)
def test_the_rate_is_the_edit_distance(reference: str, hypothesis: str) -> None:
    expected, said = ([w for w in text.split() if w != "—"] for text in (reference, hypothesis))
    found = compare_words(reference, hypothesis)
    words = max(len(expected), 1)
    assert found.error_rate == pytest.approx(edits(expected, said) / words)
    joined = " ".join(span.hypothesis for span in found.spans if span.hypothesis).split()
    assert [word for word in joined if word != "—"] == said, "nothing of the text is lost"


def test_spans_are_as_written() -> None:
    found = compare_words("Ask not, what your country can do.", "ask not what the county can do")
    assert found.spans == (
        Span("Ask not, what", "ask not what", False),
        Span("your country", "the county", True),
        Span("can do.", "can do", False),
    )
    assert found.error_rate == pytest.approx(2 / 7)


@pytest.mark.parametrize("text", ["", "Straße, 42!", "he said — yes"])
def test_equal_texts(text: str) -> None:
    found = compare_words(text, text.upper().replace("SS", "ß").replace("SS", "ß"))
    assert found.error_rate == 0
    assert not any(span.differs for span in found.spans)
