"""Pieces of a stream, and what came of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from compat_tests.support.recordings import SAMPLING_RATE
from whisper_max_backend.live import LiveTranscriber, LiveWord, Update


def pieces(samples: np.ndarray, seconds: float) -> Iterator[np.ndarray]:
    """Samples [samples], so many seconds at a time."""
    length = int(seconds * SAMPLING_RATE)
    for start in range(0, len(samples), length):
        yield samples[start : start + length]


def updates(live: LiveTranscriber, samples: np.ndarray, seconds: float = 1.0) -> list[Update]:
    """All of a stream's, the last one from its end."""
    return [*(live.push(piece) for piece in pieces(samples, seconds)), live.finish()]


def committed(found: Iterable[Update]) -> list[LiveWord]:
    """All of their words."""
    return [word for update in found for word in update.committed]
