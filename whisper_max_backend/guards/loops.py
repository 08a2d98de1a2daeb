"""The guard `loops`: a phrase again and again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from faster_whisper.transcribe import Segment, get_compression_ratio

from .refusals import MARGIN_SECONDS, Verdict
from .words import share, words

_SAME_TIMES = 4
"""A phrase that comes so often in a row is a loop."""
_FEWEST_TOKENS = 16
"""Of all of them together: people say one word more than four times."""
_SAME_WORDS = 0.8
"""Of a segment, in the text of its audio alone: it is said again and again."""
_MOST_TOKENS = 224
"""Looked back at: the text of a window."""


class Loops:
    """Looks for repetition within a segment, and together with the segments before it."""

    name = "loops"

    def __init__(
        self,
        end_of_text: int,
        compression_ratio: float | None,
        again: Callable[[float, float], str],
    ) -> None:
        """Follow a transcription.

        Args:
            end_of_text: The model's token; those below it are text.
            compression_ratio: The caller's limit; a text that compresses more was decoded badly.
            again: Decodes the audio between two times once more, in other surroundings.
        """
        self._again = again
        self._end_of_text = end_of_text
        self._compression_ratio = compression_ratio
        self._before: list[int] = []

    def judge(self, segment: Segment) -> Verdict:
        """Refuses a segment that is part of a loop; the phrase's first segments are kept."""
        tokens = [token for token in segment.tokens if token < self._end_of_text]
        said = [*self._before, *tokens]
        self._before = said[-_MOST_TOKENS:]
        length, run = longest_loop(said, len(said) - len(tokens))
        ratio = get_compression_ratio(segment.text)
        if 2 * run > len(tokens) > 0:
            reason = f"a phrase of {length} tokens comes again and again"
        elif self._compression_ratio is not None and ratio > self._compression_ratio:
            reason = f"the text compresses {ratio:.1f} times"
        else:
            return Verdict(segment)
        if self._really_said(segment, tokens):
            return Verdict(segment)
        return Verdict(None, segment, reason)

    def _really_said(self, segment: Segment, tokens: Sequence[int]) -> bool:
        """Whether the audio of a segment has its text, also without the text before it."""
        if longest_loop(tokens, 0)[1] > 0:
            return False
        other = self._again(segment.start - MARGIN_SECONDS, segment.end + MARGIN_SECONDS)
        return share(words(segment.text), words(other)) >= _SAME_WORDS


def longest_loop(tokens: Sequence[int], new: int) -> tuple[int, int]:
    """The longest run of one phrase over and over.

    Args:
        tokens: All of them.
        new: The index of the first token that counts; a phrase may have begun before.

    Returns:
        The length of the phrase, and how many tokens from `new` on are in the run; 0 and 0 if
        there is none.
    """
    found = (0, 0)
    for length, start, end in repeated(tokens, _FEWEST_TOKENS):
        inside = min(end - start, end - new)
        if inside > found[1]:
            found = (length, inside)
    return found


def repeated(tokens: Sequence[int], fewest: int = 0) -> Iterator[tuple[int, int, int]]:
    """Each run of one phrase over and over, and each longer one that it is the beginning of.

    Args:
        tokens: All of them.
        fewest: Tokens of a run, at least.

    Yields:
        The length of the phrase, and where the run begins and ends; short phrases first.
    """
    for length in range(1, len(tokens) // _SAME_TIMES + 1):
        needed = max(_SAME_TIMES * length, fewest)
        run = length
        for index in range(length, len(tokens)):
            run = run + 1 if tokens[index] == tokens[index - length] else length
            if run >= needed:
                yield length, index + 1 - run, index + 1
