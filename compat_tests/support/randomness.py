"""Random inputs: new in every run, and the same again from the seed that a failure prints."""

from __future__ import annotations

import os
import secrets
import zlib

import numpy as np

VARIABLE = "WHISPER_MAX_TEST_SEED"
SEED = int(os.environ.get(VARIABLE) or secrets.randbits(32))

_current = np.random.default_rng(SEED)


def begin(test: str) -> None:
    """From here on the inputs of a test, whatever was drawn before it."""
    global _current
    _current = np.random.default_rng([SEED, zlib.crc32(test.encode())])


def rng() -> np.random.Generator:
    """Where a test draws its inputs from."""
    return _current
