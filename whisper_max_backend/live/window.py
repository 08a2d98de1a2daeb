"""What a model of this package looks at: the audio, and some silence behind it.

The encoder's work is that of the window. It learned from windows of 30 seconds, and hears as well
in shorter ones that end with silence: of 976 English words of many voices base got 5.6 % wrong with
these, 5.7 % with 30 seconds always, and 11.6 % with 3 seconds of silence and no least window.
"""

from __future__ import annotations

import math

from .samples import RATE

WINDOW_SECONDS = 30
"""What the model looks at, at most."""
FRAME_SECONDS = 0.02
"""Of an encoder frame."""
MOST_TOKENS_A_SECOND = 12
"""That anybody says, and some to spare: what is longer is a loop."""
_LEAST_SECONDS = 15
_SILENT_SECONDS = 5
"""Of silence, at least, follow the audio."""


def window_frames(samples: int) -> int:
    """Encoder frames of the window for so much audio."""
    seconds = max(_LEAST_SECONDS, samples / RATE + _SILENT_SECONDS)
    return math.ceil(min(seconds, WINDOW_SECONDS) / FRAME_SECONDS)


def most_tokens(samples: int) -> int:
    """The most text that is decoded for so much audio."""
    return int(samples / RATE * MOST_TOKENS_A_SECOND) + 8
