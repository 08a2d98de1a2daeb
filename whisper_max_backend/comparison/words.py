"""Where two texts differ, word by word."""

from __future__ import annotations

import re
from dataclasses import dataclass

import jiwer

_PUNCTUATION = re.compile(r"[^\w']+")


@dataclass(frozen=True)
class Span:
    """Words that stand in the same place of two texts, as written; one side may have none."""

    reference: str
    hypothesis: str
    differs: bool


@dataclass(frozen=True)
class WordComparison:
    """How a hypothesis differs from a reference.

    Attributes:
        error_rate: Substituted, missing and additional words for each word of the reference.
        spans: Both texts from beginning to end.
    """

    error_rate: float
    spans: tuple[Span, ...]


def compare_words(reference: str, hypothesis: str) -> WordComparison:
    """Align two texts with the fewest edits; case and punctuation do not count.

    Against a reference without words the error rate is the number of words said.
    """
    expected, said = _Words(reference), _Words(hypothesis)
    if not expected.compared or not said.compared:
        spans = () if reference.split() == hypothesis.split() else _whole(reference, hypothesis)
        if expected.compared:
            return WordComparison(1.0, spans)
        return WordComparison(float(len(said.compared)), spans)
    found = jiwer.process_words(" ".join(expected.compared), " ".join(said.compared))
    spans = tuple(
        Span(
            expected.written(chunk.ref_start_idx, chunk.ref_end_idx),
            said.written(chunk.hyp_start_idx, chunk.hyp_end_idx),
            chunk.type != "equal",
        )
        for chunk in found.alignments[0]
    )
    return WordComparison(float(found.wer), spans)


def _whole(reference: str, hypothesis: str) -> tuple[Span, ...]:
    return (Span(reference.strip(), hypothesis.strip(), True),)


class _Words:
    """A text's words as they are compared, and the pieces of it that they were written as.

    What is punctuation only, such as a dash, goes with the word before it.
    """

    def __init__(self, text: str) -> None:
        self.compared: list[str] = []
        self._pieces: list[str] = []
        for piece in text.split():
            word = _PUNCTUATION.sub("", piece).lower()
            if word:
                self.compared.append(word)
                self._pieces.append(piece)
            elif self._pieces:
                self._pieces[-1] += " " + piece

    def written(self, start: int, end: int) -> str:
        return " ".join(self._pieces[start:end])
