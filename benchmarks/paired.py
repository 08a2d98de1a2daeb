"""Two sides measured in turns: what disturbs the machine for a while disturbs both."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

PAUSE = 0.25
"""Seconds before every call: OpenMP's threads spin for 0.2 s after their work is done."""


class Timed:
    """A call that remembers how long it took, in seconds."""

    def __init__(self, call: Callable[[], Any], threads: int | None = None) -> None:
        self.call = call
        self.threads = threads
        self.times: list[float] = []

    def __call__(self) -> Any:
        start = time.perf_counter()
        result = self.call()
        self.times.append(time.perf_counter() - start)
        return result

    @property
    def median(self) -> float:
        return statistics.median(self.times)

    @property
    def least(self) -> float:
        return min(self.times)


def fastest(by_threads: Mapping[int, Callable[[], Any]]) -> Timed:
    """The reference with as many threads as serve it best, by the fastest of three calls each."""
    tried = {threads: Timed(call) for threads, call in by_threads.items()}
    for call in tried.values():
        call.call()
    for _ in range(3):
        for call in tried.values():
            time.sleep(PAUSE)
            call()
    best = min(tried, key=lambda threads: tried[threads].least)
    return Timed(by_threads[best], best)


def take_turns(benchmark: Any, ours: Timed, others: Sequence[Timed], rounds: int) -> None:
    """All `others`, then `ours`, `rounds` times; `ours` is what pytest-benchmark times."""
    benchmark.extra_info["load_average_before"] = os.getloadavg()[0]
    for call in (*others, ours):
        call.call()

    def before() -> None:
        for call in others:
            time.sleep(PAUSE)
            call()
        time.sleep(PAUSE)

    benchmark.pedantic(ours, setup=before, rounds=rounds)
    benchmark.extra_info["load_average_after"] = os.getloadavg()[0]


def record(
    benchmark: Any,
    ours: float,
    reference: float,
    *,
    threads: int | None = None,
    audio_seconds: float | None = None,
    **more: object,
) -> float:
    """Notes medians [seconds] in ``extra_info``; returns their ratio, above 1 if ours is faster."""
    info = benchmark.extra_info
    info.update(ours_s=ours, reference_s=reference, ratio=reference / ours, **more)
    if threads is not None:
        info["reference_threads"] = threads
    if audio_seconds is not None:
        info["real_time_factor"] = ours / audio_seconds
        info["reference_real_time_factor"] = reference / audio_seconds
    return reference / ours


def compare(
    benchmark: Any,
    ours: Callable[[], Any],
    reference: Timed,
    *,
    rounds: int = 5,
    audio_seconds: float | None = None,
) -> float:
    """Measures and records both sides; returns the ratio of medians, reference / ours."""
    timed = Timed(ours)
    take_turns(benchmark, timed, [reference], rounds)
    return record(
        benchmark,
        timed.median,
        reference.median,
        threads=reference.threads,
        audio_seconds=audio_seconds,
        ratio_of_minima=reference.least / timed.least,
    )
