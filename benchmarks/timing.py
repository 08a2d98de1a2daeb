"""How long calls take, in seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

PAUSE = 0.25
"""Seconds before a call that takes turns with others: OpenMP's threads spin for 0.2 s after their
work is done, and others for less."""


def once(call: Callable[[], Any]) -> float:
    """One call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def times(
    call: Callable[[], Any],
    rounds: int,
    warm_up: int = 1,
    settle: Callable[[], Any] = lambda: None,
) -> list[float]:
    """Each of several calls.

    Args:
        call: What is timed.
        rounds: How often.
        warm_up: Calls before these, which are not counted.
        settle: Waits until a device is done: before a call, and as the end of it.
    """

    def settled() -> None:
        call()
        settle()

    found = []
    for _ in range(warm_up + rounds):
        settle()
        found.append(once(settled))
    return found[warm_up:]
