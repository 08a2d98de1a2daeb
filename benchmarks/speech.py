"""The recordings that are timed."""

from __future__ import annotations

import functools

import numpy as np

from compat_tests.support.recordings import SAMPLING_RATE as RATE
from compat_tests.support.recordings import load

__all__ = ["RATE", "speech"]


@functools.cache
def speech(name: str) -> np.ndarray:
    """A recording by its name; `ten` is `jfk` ten times, each followed by half a second."""
    if name != "ten":
        return load(name)
    return np.tile(np.pad(load("jfk"), (0, RATE // 2)), 10)
