"""``python -m benchmarks live``: how late and how right live text is, by a simulated clock.

The record's ``live`` are rows of `Run`; ``offline_error_rate`` is that of the whole recording at
once; ``absent`` are sides that could not run, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import faster_whisper
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import whisper_max_backend
from benchmarks.accuracy.transcripts import TRANSCRIPTS
from benchmarks.live import whisperlivekit
from benchmarks.live.play import Here, Live, Run, play
from benchmarks.live.stream import Stream, from_manifest, made
from benchmarks.record import begin, results_option
from benchmarks.speech import speech
from compat_tests.support.models import model_directory
from whisper_max_backend.live import LiveTranscriber

POLICIES, STOCK = ("alignatt", "local-agreement"), "stock"
SIDES = (*POLICIES, STOCK, whisperlivekit.NAME)
POINTS = {0.5: 2.0, 1.0: 1.0}
"""What alignatt may add to the word error rate, in points, by the length of a chunk."""
DELAY_SECONDS = 1.0
"""The most that a word may be late on average with chunks of half a second."""
LESS_WORK = 5.0
"""So many times the work of local agreement is WhisperLiveKit's, at least."""

Open = Callable[[float], AbstractContextManager[Live]]
"""Opens a stream with chunks of a length."""


def here(model: Any, policy: Any, language: str) -> Open:
    """A side in this process."""

    def opened(chunk: float) -> AbstractContextManager[Live]:
        return nullcontext(Here(LiveTranscriber(model, policy, language=language, min_chunk=chunk)))

    return opened


def peer(folder: str, compute_type: str, language: str, detection: bool) -> Open:
    """WhisperLiveKit."""

    def opened(chunk: float) -> AbstractContextManager[Live]:
        return whisperlivekit.opened(folder, compute_type, language, chunk, detection)

    return opened


def broken(runs: Sequence[Run], offline: float) -> list[str]:
    """Which promises do not hold, in words."""
    found = []
    for run in runs:
        if run.side != "alignatt" or run.chunk not in POINTS:
            continue
        points = 100 * (run.error_rate - offline)
        if points > POINTS[run.chunk]:
            found.append(
                f"with chunks of {run.chunk} s alignatt adds {points:.2f} points of errors"
            )
        if run.chunk <= 0.5 and run.delay_seconds > DELAY_SECONDS:
            found.append(f"a word is {run.delay_seconds:.2f} s late with chunks of {run.chunk} s")
    agreement = {run.chunk: run for run in runs if run.side == "local-agreement"}
    for run in runs:
        if not run.side.startswith(whisperlivekit.NAME) or run.chunk not in agreement:
            continue
        ours = agreement[run.chunk]
        if ours.delay_seconds > run.delay_seconds:
            found.append(f"with chunks of {run.chunk} s local agreement is later than {run.side}")
        same_chunk = run.piece_seconds < 1.1 * ours.piece_seconds  # it keeps up
        if same_chunk and run.cpu_seconds < LESS_WORK * ours.cpu_seconds:
            times = run.cpu_seconds / ours.cpu_seconds
            found.append(f"with chunks of {run.chunk} s {run.side} has {times:.1f} times the work")
    return found


def table(runs: Sequence[Run], stream: Stream, absent: dict[str, str]) -> Table:
    """The figures of one run; below, the sides that are absent with the reason."""
    result = Table(
        title=f"{stream.seconds:.0f} s of speech; at once "
        f"{stream.offline_error_rate:.2%} of the words are wrong",
        caption=escape("\n".join(f"{name}: {reason}" for name, reason in absent.items())),
    )
    headings = ("", "chunk", "piece", "wrong", "first", "late", "95 %", "LAAL", "YAAL", "erased")
    for heading in (*headings, "work", "CPU"):
        result.add_column(heading, justify="left" if heading == "" else "right")
    for run in runs:
        result.add_row(
            run.side,
            f"{run.chunk:g} s",
            f"{run.piece_seconds:.2f} s",
            f"{run.error_rate:.2%}",
            f"{run.first_seconds:.2f} s",
            f"{run.delay_seconds:.2f} s",
            f"{run.delay_p95_seconds:.2f} s",
            f"{run.lagging.laal:.2f} s" if run.lagging else "",
            f"{run.lagging.yaal:.2f} s" if run.lagging else "",
            f"{run.erased:.2f}",
            f"{run.real_time_factor:.3f}",
            f"{run.cpu_seconds:.3f}",
        )
    return result


@click.command()
@click.option("--model", "name", default="base", type=click.Choice(["tiny.en", "base"]))
@click.option("--compute-type", default="int8", show_default=True)
@click.option("--chunk", "chunks", type=float, multiple=True, default=(1.0, 0.5))
@click.option("--language", default="en", show_default=True)
@click.option(
    "--manifest",
    type=click.Path(exists=True, path_type=Path),
    help="Lines of JSON with path, transcript and language; the tests' recordings if not given.",
)
@click.option(
    "--side",
    "chosen",
    multiple=True,
    type=click.Choice(SIDES),
    default=SIDES,
    help="Only this one; several times for more. The last two are on stock faster-whisper.",
)
@click.option(
    "--stopped",
    is_flag=True,
    help="The clock waits for transcriptions; a busy machine counts less.",
)
@results_option
def main(
    name: str,
    compute_type: str,
    chunks: tuple[float, ...],
    language: str,
    manifest: Path | None,
    chosen: tuple[str, ...],
    stopped: bool,
    results: Path,
) -> None:
    """Play speech to live transcription by a simulated clock. 1 if it is too late or too wrong."""
    path = str(model_directory(name))
    ours = whisper_max_backend.WhisperModel(path, device="cpu", compute_type=compute_type)
    sides = {each: here(ours, each, language) for each in POLICIES if each in chosen}
    absent: dict[str, str] = {}
    if STOCK in chosen:
        theirs = faster_whisper.WhisperModel(path, device="cpu", compute_type=compute_type)
        sides["stock, local-agreement"] = here(theirs, "local-agreement", language)
    if whisperlivekit.NAME in chosen:
        if reason := whisperlivekit.why_absent():
            absent[whisperlivekit.NAME] = reason
        else:
            sides[whisperlivekit.NAME] = peer(path, compute_type, language, True)
            sides[f"{whisperlivekit.NAME} --no-vac"] = peer(path, compute_type, language, False)
    if manifest is None:
        recordings = [(speech(each), transcript) for each, transcript in TRANSCRIPTS.items()]
    else:
        recordings = from_manifest(manifest, language)
    some = [] if chosen == SIDES else chosen
    clock = ["stopped clock"] if stopped else []
    record = begin("live", " ".join((name, compute_type, language, *some, *clock)), absent=absent)
    stream = made(ours, recordings, language)
    record.found["offline_error_rate"] = stream.offline_error_rate
    record.found["seconds"] = stream.seconds
    runs: list[Run] = []
    for chunk in chunks:
        for side, opened in sides.items():
            try:
                with opened(chunk) as live:
                    runs.append(play(live, stream, side, chunk, stopped))
            except whisperlivekit.PeerFailed as error:
                absent[side] = str(error)
            record.found["live"] = [asdict(run) for run in runs]
            record.keep(results)
    console = Console()
    console.width = max(console.width, 120)
    console.print(table(runs, stream, absent))
    record.found["broken"] = broken(runs, stream.offline_error_rate)
    record.finish(results)


if __name__ == "__main__":
    main()
