"""Where a stream has speech, by the reference's Silero model."""

from __future__ import annotations

import numpy as np

from ..speech import FRAME, SpeechModel
from .samples import RATE, Samples

_THRESHOLD = 0.5


class SpeechDetector:
    """Knows when speech was heard. What it says is what the model says of the whole recording.

    Attributes:
        heard: Seconds since the stream began, at the end of the last speech; before any, 0.
    """

    def __init__(self) -> None:
        self.heard = 0.0
        self._model = SpeechModel()
        self._rest: Samples = np.empty(0, np.float32)  # less than a frame
        self._frames = 0  # judged so far

    def push(self, samples: Samples) -> float:
        """How many seconds of speech there are in these samples, which follow those before them.

        Samples of a frame that is not complete count with the next ones.
        """
        audio = np.concatenate([self._rest, samples])
        count = len(audio) // FRAME
        self._rest = audio[count * FRAME :]
        if count == 0:
            return 0.0
        probabilities = self._model.probabilities(audio[: count * FRAME])
        speech = np.flatnonzero(probabilities >= _THRESHOLD)
        if len(speech) > 0:
            self.heard = float(self._frames + speech[-1] + 1) * FRAME / RATE
        self._frames += count
        return len(speech) * FRAME / RATE
