"""Where a recording has speech, by the reference's Silero model."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import numpy.typing as npt

from ..speech import FRAME, speech_probabilities


class HeardSpeech:
    """Knows how much speech there is between two times. Times are in seconds."""

    def __init__(self, samples: np.ndarray, rate: int) -> None:
        """The recording is looked at when something is asked first.

        Args:
            samples: ``[samples]``.
            rate: Samples a second, as Silero wants them: 16000.
        """
        self._samples = samples
        self._frame_seconds = FRAME / rate

    @cached_property
    def _probabilities(self) -> npt.NDArray[np.float32]:
        if len(self._samples) == 0:
            return np.empty(0, np.float32)
        return speech_probabilities(self._samples.astype(np.float32, copy=False))

    def seconds(self, start: float, end: float, threshold: float) -> float:
        """How long there is speech, of at least a probability, from `start` to `end`."""
        return len(self._frames(start, end, threshold)) * self._frame_seconds

    def pieces(
        self, start: float, end: float, threshold: float, pause: float
    ) -> list[tuple[float, float]]:
        """Start and end of what is spoken between two times; shorter pauses are part of it."""
        found: list[tuple[float, float]] = []
        for frame in self._frames(start, end, threshold):
            begin = float(frame) * self._frame_seconds
            after = min(begin + self._frame_seconds, end)
            if found and begin - found[-1][1] < pause:
                found[-1] = (found[-1][0], after)
            else:
                found.append((max(begin, start), after))
        return found

    def _frames(self, start: float, end: float, threshold: float) -> npt.NDArray[np.intp]:
        """Indices of frames that begin from `start` to `end` and are speech."""
        first, last = (
            max(0, int(np.ceil(round(time / self._frame_seconds, 6)))) for time in (start, end)
        )
        return first + np.flatnonzero(self._probabilities[first:last] >= threshold)
