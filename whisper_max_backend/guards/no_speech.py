"""The guard `no-speech`: text where nobody speaks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from faster_whisper.transcribe import Segment

from .refusals import MARGIN_SECONDS, Verdict
from .speech import HeardSpeech
from .words import letters, share, words

LETTERS_A_SECOND = 32.0
"""The most that is said in a second of heard speech; of real recordings, the fastest segment has
26."""
_FEWEST_SECONDS = 0.1
"""Of heard speech, without which there is no text."""
_CERTAINTIES = (-1.2, -0.8, -0.5)
_THRESHOLDS = (0.8, 0.5, 0.1)
"""What Silero must say of a frame that counts, for text of these certainties. Under noise and on
telephones speech has low probabilities, but the text is certain. Invented text is uncertain."""
_NO_SPEECH = 0.5
"""Of Whisper's own probability that nobody speaks, what is above takes away from the certainty."""
_UNCERTAIN = -0.6
"""Below, what sounds like a voice is decoded again, alone: invented text is another one then."""
_LONG_SECONDS = 3.0
"""Of clear speech, which only voices make: then it is not."""
_SAME_WORDS = 0.2
_SAME_LETTERS = 0.5
"""Shares of the text of which either must be in the other one; a short word may be heard as one
that is like it."""


class NoSpeech:
    """Compares the text of a segment with the speech that is heard under it."""

    name = "no-speech"

    def __init__(self, speech: HeardSpeech, again: Callable[[float, float], str]) -> None:
        """Follow a transcription.

        Args:
            speech: Of the recording.
            again: Decodes the audio between two times once more, in other surroundings.
        """
        self._speech = speech
        self._again = again

    def judge(self, segment: Segment) -> Verdict:
        """Refuses a segment that was not said."""
        certainty = segment.avg_logprob - max(0.0, segment.no_speech_prob - _NO_SPEECH)
        threshold = float(np.interp(certainty, _CERTAINTIES, _THRESHOLDS))
        start, end = segment.start - MARGIN_SECONDS, segment.end + MARGIN_SECONDS
        heard = self._speech.seconds(start, end, threshold)
        count = letters(segment.text)
        figures = (
            f"mean log-probability {segment.avg_logprob:.2f}, no-speech probability "
            f"{segment.no_speech_prob:.2f}"
        )
        if heard < _FEWEST_SECONDS or count > heard * LETTERS_A_SECOND:
            reason = (
                f"{heard:.2f} s of speech are heard for {count} letters (speech probability from "
                f"{threshold:.2f} on, {figures})"
            )
            return Verdict(None, segment, reason)
        if certainty < _UNCERTAIN and heard < _LONG_SECONDS:
            other = self._again(start, end)
            if not _alike(segment.text, other):
                reason = f"decoded alone it is {other.strip()!r} ({figures})"
                return Verdict(None, segment, reason)
        return Verdict(segment)


def _alike(text: str, other: str) -> bool:
    mine, others = words(text), words(other)
    return (
        share(mine, others) >= _SAME_WORDS or share("".join(mine), "".join(others)) >= _SAME_LETTERS
    )
