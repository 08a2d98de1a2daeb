"""The seed of random sampling."""

from __future__ import annotations

import itertools
import operator
import secrets

import numpy as np

from ...system.unpatched_threads import new_lock

_lock = new_lock()
_seed: int | None = None
_requests = itertools.count()


def set_random_seed(seed: int) -> None:
    """Make random sampling repeatable.

    The stand-in for ``ctranslate2.set_random_seed``, whose value cannot be read by others. The
    requests made from now on draw the same numbers as after any earlier call with this seed,
    provided that they come in the same order. Without a call every request draws anew.

    Args:
        seed: Any non-negative integer.

    Raises:
        TypeError: The seed is not an integer, or negative.
    """
    global _seed, _requests
    value = operator.index(seed)
    if value < 0:
        raise TypeError(f"the random seed must not be negative, got {value}")
    with _lock:
        _seed = value
        _requests = itertools.count()


def request_seed() -> int:
    """The seed of the next request, in [0, 2**31)."""
    with _lock:
        if _seed is None:
            return secrets.randbits(31)
        mixed = np.random.SeedSequence((_seed, next(_requests))).generate_state(1)
        return int(mixed[0] >> 1)
