"""What a live transcription gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..guards.words import letters


@dataclass(frozen=True)
class LiveWord:
    """A word.

    Attributes:
        text: With the space before it, where its language has one.
        start: Seconds since the stream began.
        end: The same.
        confidence: Geometric mean of the probabilities of its tokens.
    """

    text: str
    start: float
    end: float
    confidence: float


@dataclass(frozen=True)
class Update:
    """What is new.

    Attributes:
        committed: Words that are new, and never change.
        tentative: All words behind them as far as they can be guessed; the next update has others.
        behind: Seconds of audio that came in and have no committed words, nor are silence.
    """

    committed: list[LiveWord] = field(default_factory=list)
    tentative: list[LiveWord] = field(default_factory=list)
    behind: float = 0.0

    @property
    def committed_text(self) -> str:
        """The committed words as they are read."""
        return joined(self.committed)

    @property
    def tentative_text(self) -> str:
        """The tentative words as they are read."""
        return joined(self.tentative)


def within(words: Sequence[LiveWord], most_letters: int) -> int:
    """How many words have no more letters and digits together."""
    count = 0
    for word in words:
        most_letters -= letters(word.text)
        if most_letters < 0:
            break
        count += 1
    return count


def joined(words: Sequence[LiveWord]) -> str:
    """The text of words."""
    return "".join(word.text for word in words)
