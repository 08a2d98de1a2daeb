"""``python -m benchmarks compare OLD NEW``: times two commits of this repository in turns.

Each commit has a worktree and a cache of its own. A pair is every case with the one and with the
other, in new processes; which is first changes from pair to pair. A case's figure is the median
of the pairs' ratios of seconds, new / old, with the interval that a bootstrap gives it. Where OLD
and NEW are the same commit, the interval tells what differences can be seen at all.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.compare.commits import Commit, checked_out
from benchmarks.record import begin, results_option
from benchmarks.speech import speech
from benchmarks.timing import PAUSE
from compat_tests.support.models import model_directory
from compat_tests.support.recordings import audio_file, write_wav

COLD, START = "cold cache to first text", "start to first text"
RECORDINGS = {"11 s": "jfk", "115 s": "ten"}
"""What a loaded `base` in int8 transcribes."""
GROUPS = ("cold", "start", "transcribe")
_CONFIDENCE = 95  # per cent
_RESAMPLES = 10_000

Seconds = dict[str, float]
"""By case."""


@dataclass(frozen=True)
class Ratio:
    """One case of all pairs.

    Attributes:
        case: What was timed.
        old_s, new_s: Seconds of each pair.
        ratio: The median of new / old.
        low, high: Its interval.
    """

    case: str
    old_s: list[float]
    new_s: list[float]
    ratio: float
    low: float
    high: float


def ratio_of(case: str, old: list[float], new: list[float]) -> Ratio:
    """The median of the pairs' ratios, and its interval by a percentile bootstrap."""
    ratios = np.array(new) / np.array(old)
    drawn = np.random.default_rng(0).choice(ratios, (_RESAMPLES, len(ratios)))
    outside = (100 - _CONFIDENCE) / 2
    low, high = np.percentile(np.median(drawn, axis=1), (outside, 100 - outside))
    return Ratio(case, old, new, float(np.median(ratios)), float(low), float(high))


def broken(ratios: list[Ratio], limit: float) -> list[str]:
    """Which cases the new commit has made slower by more than `limit` [per cent]."""
    return [
        f"{one.case} takes {100 * (one.ratio - 1):+.1f} %"
        for one in ratios
        if one.ratio > 1 + limit / 100
    ]


def measure_pair(
    sides: tuple[Commit, Commit], groups: tuple[str, ...], files: Mapping[str, Path], rounds: int
) -> tuple[Seconds, Seconds]:
    """Every case of both, in turns in the order given."""
    found: tuple[Seconds, Seconds] = ({}, {})
    tiny, base = (model_directory(name) for name in ("tiny.en", "base"))
    if "cold" in groups:
        for side, seconds in zip(sides, found, strict=True):
            side.empty_cache()
            seconds[f"tiny.en int8, {COLD}"] = side.first_text(tiny, audio_file("jfk.flac"))
    if set(groups) - {"cold"}:
        for side in sides:
            side.warm_up((tiny, base), files.values())
    if "start" in groups:
        # The order within a round does not matter: medians are compared.
        starts: tuple[list[float], list[float]] = ([], [])
        for _ in range(rounds):
            for side, times in zip(sides, starts, strict=True):
                times.append(side.first_text(tiny, audio_file("jfk.flac")))
        for seconds, times in zip(found, starts, strict=True):
            seconds[f"tiny.en int8, {START}"] = median(times)
    if "transcribe" in groups:
        with sides[0].loaded(base, "int8") as first, sides[1].loaded(base, "int8") as second:
            for name, file in files.items():
                taken: tuple[list[float], list[float]] = ([], [])
                for turn in range(1 + rounds):
                    for model, times in zip((first, second), taken, strict=True):
                        time.sleep(PAUSE)
                        taken_now = model.transcribe(file)
                        if turn:  # buffers are made at the first
                            times.append(taken_now)
                for seconds, times in zip(found, taken, strict=True):
                    seconds[f"base int8, {name}"] = median(times)
    return found


def table(ratios: list[Ratio]) -> Table:
    """The cases, a line each."""
    result = Table()
    result.add_column("case")
    for column in ("old", "new", "new / old", f"{_CONFIDENCE} % of a bootstrap"):
        result.add_column(column, justify="right")
    for one in ratios:
        result.add_row(
            one.case,
            *(f"{median(times):.3f} s" for times in (one.old_s, one.new_s)),
            f"{one.ratio:.3f}",
            f"{one.low:.3f} to {one.high:.3f}",
        )
    return result


@click.command()
@click.argument("old")
@click.argument("new", default="HEAD")
@click.option("--pairs", default=5, show_default=True, type=click.IntRange(min=1))
@click.option(
    "--rounds",
    default=5,
    show_default=True,
    type=click.IntRange(min=1),
    help="How often a pair repeats what takes a moment; their median counts.",
)
@click.option(
    "--case",
    "groups",
    multiple=True,
    type=click.Choice(GROUPS),
    default=GROUPS,
    help="Only these cases; cold ones take minutes.",
)
@click.option(
    "--limit", default=3.0, show_default=True, help="Per cent that a case may become slower."
)
@results_option
def main(
    old: str,
    new: str,
    pairs: int,
    rounds: int,
    groups: tuple[str, ...],
    limit: float,
    results: Path,
) -> None:
    """Time commit OLD against NEW in turns, on the CPU; 1 if NEW is slower.

    The cases are: tiny.en from a process's start to its first text, with an empty cache (which
    compiles) and with a full one; and base in int8 on 11 s and 115 s of speech.
    """
    console = Console()
    with (
        tempfile.TemporaryDirectory(prefix="whisper-max-compare-") as name,
        checked_out(old, Path(name, "old")) as before,
        checked_out(new, Path(name, "new")) as after,
    ):
        files = {name_of: Path(name, f"{made}.wav") for name_of, made in RECORDINGS.items()}
        for file, made in zip(files.values(), RECORDINGS.values(), strict=True):
            write_wav(file, speech(made))
        record = begin(
            "compare", f"{before.short} {after.short}", old=before.commit, new=after.commit
        )
        by_case: dict[str, tuple[list[float], list[float]]] = {}
        for pair in range(pairs):
            if pair % 2 == 0:
                one, other = measure_pair((before, after), groups, files, rounds)
            else:
                other, one = measure_pair((after, before), groups, files, rounds)
            for case in one:
                times = by_case.setdefault(case, ([], []))
                times[0].append(one[case])
                times[1].append(other[case])
            ratios = [ratio_of(case, *times) for case, times in by_case.items()]
            rows: list[dict[str, Any]] = [asdict(each) for each in ratios]
            record.found |= {"pairs": rows, "broken": broken(ratios, limit)}
            record.keep(results)
            console.print(f"pair {pair + 1} of {pairs}", table(ratios))
    record.finish(results)
