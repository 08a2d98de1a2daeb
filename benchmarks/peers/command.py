"""``python -m benchmarks peers``: other programs on the same weights, in turns with this package.

The record's ``peers`` are rows, one for each recording and number of beams: medians of seconds of
this package in int8 (``ours_s``) and of the better stock faster-whisper (``reference_s``), their
``ratio``, all ``programs`` with their own, and those ``absent`` with the reason.
"""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.peers import Model, peers
from benchmarks.peers.faster_whisper import FasterWhisper
from benchmarks.peers.process import Heard, PeerFailed, PeerProcess
from benchmarks.record import begin, results_option
from benchmarks.speech import RATE, speech
from benchmarks.timing import PAUSE
from compat_tests.support.models import model_directory
from whisper_max_backend.comparison.words import compare_words

OURS = FasterWhisper("whisper_max_backend", "int8")
ALSO_OURS = FasterWhisper("whisper_max_backend", "bfloat16")
STOCK = "faster-whisper"


class Sides:
    """This package and all peers with one model; why those are absent that are."""

    def __init__(self, model: Model) -> None:
        self.absent: dict[str, str] = {}
        self.running: dict[str, PeerProcess] = {}
        for peer in (OURS, ALSO_OURS, *peers()):
            reason = peer.why_absent()
            if not reason:
                try:
                    self.running[peer.name] = PeerProcess(peer, model)
                except PeerFailed as error:
                    reason = str(error)
            if reason:
                self.absent[peer.name] = reason

    def end(self) -> None:
        """End all processes."""
        for process in self.running.values():
            process.end()

    def transcribe(self, name: str, recording: str, beams: int) -> Heard | None:
        """What a peer hears; None if it is absent, or fails now, which makes it so."""
        if name not in self.running:
            return None
        try:
            return self.running[name].transcribe(recording, beams)
        except PeerFailed as error:
            self.absent[name] = str(error)
            del self.running[name]
            return None


def measure(sides: Sides, recording: str, beams: int, rounds: int) -> dict[str, Any]:
    """All that run, in turns; `ratio` is that of the better stock faster-whisper over ours.

    Raises:
        RuntimeError: This package cannot run.
    """
    heard: dict[str, list[Heard]] = {}
    before = os.getloadavg()[0]
    for turn in range(1 + rounds):
        for name in list(sides.running):
            time.sleep(PAUSE)
            result = sides.transcribe(name, recording, beams)
            if result is not None and turn:  # what a program makes on first use is not counted
                heard.setdefault(name, []).append(result)
    if OURS.name not in sides.running:
        raise RuntimeError(sides.absent[OURS.name])
    ours = statistics.median(one.seconds for one in heard[OURS.name])
    text = heard[OURS.name][-1].text
    rows: list[dict[str, Any]] = []
    for name in sides.running:
        median = statistics.median(one.seconds for one in heard[name])
        rows.append(
            {
                "name": name,
                "seconds": median,
                "all_seconds": [one.seconds for one in heard[name]],
                "ratio": median / ours,
                "words_unlike_ours": compare_words(text, heard[name][-1].text).error_rate,
            }
        )
    best = min(row["seconds"] for row in rows if row["name"].startswith(STOCK))
    seconds = len(speech(recording)) / RATE
    return {
        "recording": recording,
        "beams": beams,
        "rounds": rounds,
        "load_average_before": before,
        "load_average_after": os.getloadavg()[0],
        "ours_s": ours,
        "reference_s": best,
        "ratio": best / ours,
        "programs": rows,
        "absent": dict(sides.absent),
        "real_time_factor": ours / seconds,
        "reference_real_time_factor": best / seconds,
    }


def table(row: dict[str, Any]) -> Table:
    """Every program in one case, slowest last; below, those that are absent with the reason."""
    absent = "\n".join(f"{name}: {reason}" for name, reason in row["absent"].items())
    result = Table(title=f"{row['recording']}, beam {row['beams']}", caption=escape(absent))
    result.add_column("program")
    for column in ("time", "of ours", "words unlike ours"):
        result.add_column(column, justify="right")
    for program in sorted(row["programs"], key=lambda program: program["seconds"]):
        result.add_row(
            program["name"],
            f"{program['seconds']:.2f} s",
            f"{program['ratio']:.2f}",
            f"{program['words_unlike_ours']:.1%}",
        )
    return result


@click.command()
@click.option("--model", "name", default="base", show_default=True, help="base or tiny.en.")
@click.option("--recording", "recordings", multiple=True, default=("jfk", "ten"), show_default=True)
@click.option("--beams", multiple=True, type=int, default=(5, 1), show_default=True)
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(min=1))
@results_option
def main(
    name: str, recordings: tuple[str, ...], beams: tuple[int, ...], rounds: int, results: Path
) -> None:
    """Time other programs that run Whisper, each in a process of its own, with the same weights."""
    console = Console()
    rows: list[dict[str, Any]] = []
    record = begin("peers", name, model=name, peers=rows)
    sides = Sides(Model(name, model_directory(name)))
    try:
        for recording in recordings:
            for count in beams:
                rows.append(measure(sides, recording, count, rounds))
                record.keep(results)
                console.print(table(rows[-1]))
    finally:
        sides.end()
    record.finish(results)
