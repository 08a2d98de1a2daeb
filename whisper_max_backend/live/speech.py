"""Where a stream has speech, by the reference's Silero model."""

from __future__ import annotations

import numpy as np
from faster_whisper.vad import get_vad_model

from .samples import RATE, Samples

_FRAME = 512  # samples that the model judges at once
_THRESHOLD = 0.5
_CONTEXT_SECONDS = 1.0


class SpeechDetector:
    """Knows when speech was last heard.

    Attributes:
        heard: Seconds since the stream began, at the end of the last speech; before any, 0.
    """

    def __init__(self) -> None:
        self.heard = 0.0
        self._tail: Samples = np.empty(0, np.float32)
        self._seconds = 0.0

    def push(self, samples: Samples) -> bool:
        """Whether there is speech in these samples, which follow those before them."""
        audio = np.concatenate([self._tail, samples])
        start = self._seconds - len(self._tail) / RATE
        self._seconds += len(samples) / RATE
        padded = np.pad(audio, (0, -len(audio) % _FRAME))
        frames = np.flatnonzero(get_vad_model()(padded).ravel() >= _THRESHOLD)
        frames = frames[frames * _FRAME >= len(self._tail) - _FRAME]
        self._tail = audio[-int(_CONTEXT_SECONDS * RATE) :]
        if len(frames) == 0:
            return False
        end = start + float(frames[-1] + 1) * _FRAME / RATE
        self.heard = max(self.heard, min(end, self._seconds))
        return True
