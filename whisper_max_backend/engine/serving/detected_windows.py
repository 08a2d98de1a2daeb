"""Windows whose language was just detected: a transcription encodes them once more.

faster-whisper encodes the first window of a recording to detect its language, and again to
transcribe it. The second time the first output is given back.
"""

from __future__ import annotations

import threading
from collections import deque

import numpy as np
import numpy.typing as npt

from ..api.arrays import EncoderOutput

MOST = 4
"""Windows that are kept for callers at the same time; the oldest makes room."""


class DetectedWindows:
    """Encoder outputs of single windows, each until its window is encoded again.

    Several threads may use it at once.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: deque[tuple[npt.NDArray[np.float32], EncoderOutput]] = deque(maxlen=MOST)

    def keep(self, output: EncoderOutput) -> None:
        """Keep an output that knows the window it was made of, ``[1, n_mels, frames]``."""
        if output.features is not None:
            with self._lock:
                self._kept.append((output.features, output))

    def take(self, features: npt.NDArray[np.float32]) -> EncoderOutput | None:
        """The output of this window, which is kept no longer; None if there is none."""
        with self._lock:
            for index, (window, output) in enumerate(self._kept):
                if np.array_equal(window, features):
                    del self._kept[index]
                    return output
        return None
