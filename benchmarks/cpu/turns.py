"""Two sides measured in turns: what disturbs the machine for a while disturbs both."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.timing import PAUSE, once


class Timed:
    """A call that remembers how long it took, in seconds."""

    def __init__(self, call: Callable[[], Any], threads: int | None = None) -> None:
        self.call = call
        self.threads = threads
        self.times: list[float] = []

    def __call__(self) -> None:
        self.times.append(once(self.call))

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


class Turns:
    """Both sides of one benchmark, measured in turns and noted in its ``extra_info``."""

    def __init__(self, benchmark: Any, rounds: int | None) -> None:
        """`benchmark` is pytest-benchmark's; `rounds` overrules what a benchmark asks for."""
        self.benchmark = benchmark
        self.rounds = rounds
        self.info: dict[str, Any] = benchmark.extra_info

    def take(self, ours: Timed, others: Sequence[Timed], rounds: int = 5) -> None:
        """All `others`, then `ours`, `rounds` times; `ours` is what pytest-benchmark times."""
        self.info["load_average_before"] = os.getloadavg()[0]
        for call in (*others, ours):
            call.call()

        def before() -> None:
            for call in others:
                time.sleep(PAUSE)
                call()
            time.sleep(PAUSE)

        self.benchmark.pedantic(ours, setup=before, rounds=self.rounds or rounds)
        self.info["load_average_after"] = os.getloadavg()[0]

    def note(
        self,
        ours: float,
        reference: float,
        *,
        threads: int | None = None,
        audio_seconds: float | None = None,
        **more: object,
    ) -> float:
        """Notes medians [seconds]; returns their ratio, above 1 if ours is faster."""
        self.info.update(ours_s=ours, reference_s=reference, ratio=reference / ours, **more)
        if threads is not None:
            self.info["reference_threads"] = threads
        if audio_seconds is not None:
            self.info["real_time_factor"] = ours / audio_seconds
            self.info["reference_real_time_factor"] = reference / audio_seconds
        return reference / ours

    def compare(
        self,
        ours: Callable[[], Any],
        reference: Timed,
        *,
        rounds: int = 5,
        audio_seconds: float | None = None,
    ) -> float:
        """Measures and notes both sides; returns the ratio of medians, reference / ours."""
        timed = Timed(ours)
        self.take(timed, [reference], rounds)
        return self.note(
            timed.median,
            reference.median,
            threads=reference.threads,
            audio_seconds=audio_seconds,
            ratio_of_minima=reference.least / timed.least,
        )
