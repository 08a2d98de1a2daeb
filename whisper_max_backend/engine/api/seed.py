"""The seed of random sampling."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import operator
import secrets
from collections.abc import Iterator
from contextvars import ContextVar

import numpy as np

from ...system.unpatched_threads import new_lock

_lock = new_lock()
_seed: int | None = None
_requests = itertools.count()
_own_seeds: ContextVar[Iterator[int] | None] = ContextVar("_own_seeds", default=None)


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
    own_seeds = _own_seeds.get()
    if own_seeds is not None:
        return next(own_seeds)
    with _lock:
        if _seed is None:
            return secrets.randbits(31)
        return _mixed(_seed, next(_requests))


@contextlib.contextmanager
def seeded(key: str | int) -> Iterator[None]:
    """Give the requests made within seeds that depend on the key, whatever others ask for.

    They are different ones after `set_random_seed`, but the same in every process.
    """
    digest = int.from_bytes(hashlib.sha256(str(key).encode()).digest(), "little")
    base = (digest,) if _seed is None else (digest, _seed)
    token = _own_seeds.set(_mixed(*base, number) for number in itertools.count())
    try:
        yield
    finally:
        _own_seeds.reset(token)


def _mixed(*entropy: int) -> int:
    return int(np.random.SeedSequence(entropy).generate_state(1)[0] >> 1)
