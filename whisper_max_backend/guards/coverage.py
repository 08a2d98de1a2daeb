"""The guard `coverage`: speech that no segment covers is decoded again."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from faster_whisper.transcribe import Segment

from .speech import HeardSpeech
from .words import share, words

_THRESHOLD = 0.5
_FEWEST_SECONDS = 1.0
"""Of speech without text that are worth another decoding."""
_PAUSE_SECONDS = 2.0
"""Silence that ends a stretch, as with the reference's VAD filter."""
_MARGIN_SECONDS = 0.4
"""Of audio around it, as there."""
_BESIDE_SECONDS = 3.0
"""So near are segments that may have the same words."""
_SAME_WORDS = 0.6
"""A share of words that the segments beside it have in the same order: they were said once."""
_WHOLE = 0.8
"""A share of the words of a segment that are all of them."""
_FRAMES_A_SECOND = 100
"""That `Segment.seek` counts."""

Decode = Callable[[np.ndarray], Sequence[Segment]]


class Coverage:
    """Finds what is spoken between two segments."""

    name = "coverage"

    def __init__(
        self,
        speech: HeardSpeech,
        samples: np.ndarray,
        rate: int,
        threshold: float | None,
        regions: Sequence[tuple[float, float]],
        decode: Decode,
    ) -> None:
        """Follow a transcription.

        Args:
            speech: Of the recording.
            samples: ``[samples]`` of it.
            rate: Samples a second.
            threshold: Of the caller's VAD, if there is one: from which probability on it hears.
            regions: Start and end, in seconds, of what is to be transcribed.
            decode: Transcribes some samples.
        """
        self._speech = speech
        self._samples = samples
        self._rate = rate
        self._threshold = _THRESHOLD if threshold is None else threshold
        self._regions = regions
        self._decode = decode

    def stretches(self, start: float, end: float) -> Iterator[tuple[float, float]]:
        """Where there is enough speech in a gap between two segments, with a margin."""
        for begin, after in self._regions:
            first, last = max(start, begin), min(end, after)
            for spoken in self._speech.pieces(first, last, self._threshold, _PAUSE_SECONDS):
                if self._speech.seconds(*spoken, self._threshold) < _FEWEST_SECONDS:
                    continue
                yield (
                    max(first, spoken[0] - _MARGIN_SECONDS),
                    min(last, spoken[1] + _MARGIN_SECONDS),
                )

    def decode(self, start: float, end: float) -> Iterator[Segment]:
        """Segments of the audio between two times alone, with times of the whole recording."""
        samples = self._samples[int(start * self._rate) : int(end * self._rate)]
        for segment in self._decode(samples):
            yield _moved(segment, start, end)


def said_beside(segment: Segment, others: Sequence[Segment]) -> str | None:
    """Why a segment that was decoded again is no new text; None if it is.

    The first words of a segment are found again if its own time begins too late, and the last ones
    if it ends too early. What has all of its words is said once more.
    """
    mine = words(segment.text)
    beside = [
        word
        for other in others
        if other.end > segment.start - _BESIDE_SECONDS
        and other.start < segment.end + _BESIDE_SECONDS
        and share(words(other.text), mine) < _WHOLE
        for word in words(other.text)
    ]
    same = share(mine, beside)
    if same < _SAME_WORDS:
        return None
    return f"{same:.0%} of its words are in the segments beside it"


def _moved(segment: Segment, seconds: float, latest: float) -> Segment:
    """The segment so much later; Whisper's last one may end with its window."""
    moved = segment.words and [
        dataclasses.replace(word, start=word.start + seconds, end=word.end + seconds)
        for word in segment.words
    ]
    start = segment.start + seconds
    return dataclasses.replace(
        segment,
        seek=segment.seek + round(seconds * _FRAMES_A_SECOND),
        start=start,
        end=max(start, min(segment.end + seconds, latest)),
        words=moved,
    )
