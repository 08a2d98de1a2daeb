"""Texts as they are compared: in words, or in characters where a language has no spaces."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import jiwer

WITHOUT_SPACES = frozenset({"bo", "ja", "km", "lo", "my", "th", "yue", "zh"})
"""Languages, as Whisper calls them, whose errors are counted in characters."""

_DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
_WORST = 0.01
"""The share of recordings that `Errors.without_worst` leaves out."""


def words(text: str) -> str:
    """A text as it is compared: no case, no punctuation, digits up to ten and keys by name."""
    text = re.sub(r"\(.*?\)|\[.*?\]|<.*?>", " ", text.lower())  # what is heard and not said
    text = re.sub(r"[-/.]", " ", text.replace("#", " pound ").replace("*", " star "))
    found = (re.sub(r"[^\w']", "", word) for word in text.split())
    return " ".join(
        _DIGITS[int(word)] if word.isdecimal() and int(word) <= 10 else word
        for word in found
        if word
    )


def error_rate(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """Word errors for each word of the references, over all texts together."""
    return float(jiwer.wer([words(one) for one in references], [words(one) for one in hypotheses]))


@dataclass(frozen=True)
class Errors:
    """What a text has wrong.

    Attributes:
        wrong: Words or characters that were replaced, left out or added.
        units: Those of the reference.
    """

    wrong: int
    units: int

    @classmethod
    def of(cls, reference: str, hypothesis: str, language: str | None) -> Errors:
        """Those of one text, in the units of its language."""
        said, heard = (_units(text, language) for text in (reference, hypothesis))
        if not said:
            return cls(len(heard), 0)
        found = jiwer.process_words(" ".join(said), " ".join(heard))
        return cls(found.substitutions + found.deletions + found.insertions, len(said))

    @classmethod
    def total(cls, found: Iterable[Errors]) -> Errors:
        """Those of several texts together."""
        pairs = [(one.wrong, one.units) for one in found]
        return cls(sum(wrong for wrong, _ in pairs), sum(units for _, units in pairs))

    @property
    def rate(self) -> float:
        """Errors for each unit; those of texts in which nothing is said count as of one."""
        return self.wrong / max(1, self.units)

    def __str__(self) -> str:
        share = f"{self.rate:.2%} " if self.units else ""
        return f"{share}({self.wrong} of {self.units})"


def without_worst(found: Sequence[Errors]) -> list[Errors]:
    """All but the hundredth of texts, rounded up, with the most errors: one that falls into a loop
    outweighs all others."""
    left_out = math.ceil(_WORST * len(found))
    return sorted(found, key=lambda one: one.wrong, reverse=True)[left_out:]


def _units(text: str, language: str | None) -> list[str]:
    normal = words(text)
    return list(normal.replace(" ", "")) if language in WITHOUT_SPACES else normal.split()
