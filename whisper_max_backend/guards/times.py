"""The guard `times`: words in no time, and words outside of the recording."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from faster_whisper.transcribe import Segment, Word

from .no_speech import LETTERS_A_SECOND
from .refusals import MARGIN_SECONDS, Verdict
from .words import letters

_WORDS = 3
"""So many words in a row are looked at: the time of a single one may be wrong."""
_LETTERS_A_SECOND = 2 * LETTERS_A_SECOND
"""Of these words; of real recordings, the fastest have 44."""


class Times:
    """Looks at times alone."""

    name = "times"

    def __init__(self, duration: float, encode: Callable[[str], list[int]]) -> None:
        """Follow a transcription.

        Args:
            duration: Seconds of the recording.
            encode: Turns text into tokens.
        """
        self._duration = duration
        self._encode = encode

    def judge(self, segment: Segment) -> Verdict:
        """Refuses a segment, or those of its words, that cannot have been said then."""
        if segment.start >= self._duration:
            reason = f"it begins at {segment.start:.2f} s, after the end ({self._duration:.2f} s)"
            return Verdict(None, segment, reason)
        seconds = segment.end - segment.start
        count = letters(segment.text)
        if count > (seconds + 2 * MARGIN_SECONDS) * LETTERS_A_SECOND:
            return Verdict(None, segment, f"{count} letters in {seconds:.2f} s")
        words = segment.words or []
        packed = _packed(words)
        late = {index for index, word in enumerate(words) if word.start >= self._duration}
        if not packed | late:
            return Verdict(segment)
        kept = [word for index, word in enumerate(words) if index not in packed | late]
        refused = [word for index, word in enumerate(words) if index in packed | late]
        return Verdict(
            self._of(segment, kept) if kept else None,
            self._of(segment, refused),
            f"{len(packed)} words in no time, {len(late)} after the end ({self._duration:.2f} s)",
        )

    def _of(self, segment: Segment, words: list[Word]) -> Segment:
        text = "".join(word.word for word in words)
        return dataclasses.replace(
            segment,
            start=words[0].start,
            end=words[-1].end,
            text=text,
            tokens=self._encode(text),
            words=words,
        )


def _packed(words: Sequence[Word]) -> set[int]:
    """The indices of words that are among some in a row that nobody says so fast."""
    found: set[int] = set()
    for first in range(len(words) - _WORDS + 1):
        some = words[first : first + _WORDS]
        count = sum(letters(word.word) for word in some)
        if count > (some[-1].end - some[0].start) * _LETTERS_A_SECOND:
            found.update(range(first, first + _WORDS))
    return found
