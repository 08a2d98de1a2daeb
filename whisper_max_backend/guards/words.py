"""Words of texts, to compare and to count them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

_WITHOUT_SPACES = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\uf900-\ufaff"
"""Thai, Lao, Burmese and Khmer, and what is written in China and Japan: a letter is a word."""
_WORD = re.compile(rf"(?=\w)[{_WITHOUT_SPACES}]|(?:(?![{_WITHOUT_SPACES}])[^\W_])+")


def letters(text: str) -> int:
    """How many letters and digits there are."""
    return sum(character.isalnum() for character in text)


def words(text: str) -> list[str]:
    """All words, in lower case, without punctuation."""
    return _WORD.findall(text.lower().replace("'", "").replace("\u2019", ""))


def share(some: Sequence[str], others: Sequence[str]) -> float:
    """The share of some words, or letters, that are among others in the same order."""
    matcher = difflib.SequenceMatcher(None, some, others, autojunk=False)
    same = sum(block.size for block in matcher.get_matching_blocks())
    return same / len(some) if some else 1.0
