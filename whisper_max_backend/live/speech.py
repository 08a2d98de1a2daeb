"""Where a stream has speech, by the reference's Silero model."""

from __future__ import annotations

import numpy as np
from faster_whisper.vad import get_vad_model

from ..guards.speech import FRAME
from .samples import RATE, Samples

_CONTEXT = 64  # samples before a frame, which it sees, too
_THRESHOLD = 0.5


class SpeechDetector:
    """Knows when speech was heard. What it says is what the model says of the whole recording.

    Attributes:
        heard: Seconds since the stream began, at the end of the last speech; before any, 0.
    """

    def __init__(self) -> None:
        self.heard = 0.0
        self._state = [np.zeros((1, 1, 128), np.float32)] * 2  # of the model
        self._context: Samples = np.zeros(_CONTEXT, np.float32)
        self._rest: Samples = np.empty(0, np.float32)  # less than a frame
        self._frames = 0  # judged so far

    def push(self, samples: Samples) -> float:
        """How many seconds of speech there are in these samples, which follow those before them.

        Samples of a frame that is not complete count with the next ones.
        """
        audio = np.concatenate([self._context, self._rest, samples])
        count = (len(audio) - _CONTEXT) // FRAME
        if count == 0:
            self._rest = audio[_CONTEXT:]
            return 0.0
        self._context = audio[count * FRAME :][:_CONTEXT]
        self._rest = audio[count * FRAME + _CONTEXT :]
        frames = np.lib.stride_tricks.sliding_window_view(audio, _CONTEXT + FRAME)[::FRAME]
        inputs = dict(zip(("h", "c"), self._state, strict=True), input=frames[:count])
        probabilities, *self._state = get_vad_model().session.run(None, inputs)
        speech = np.flatnonzero(probabilities.ravel() >= _THRESHOLD)
        if len(speech) > 0:
            self.heard = float(self._frames + speech[-1] + 1) * FRAME / RATE
        self._frames += count
        return len(speech) * FRAME / RATE
