"""``python -m benchmarks programs``: how much faster the programs that people use become.

The record's ``programs`` are rows, one for each way to use one: medians of seconds, stock and
swapped in, and their ``ratio``.
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from benchmarks.record import begin, results_option
from benchmarks.timing import PAUSE
from compat_tests.support.models import model_directory
from compat_tests.support.programs.catalogue import PROGRAMS, Mode, Program
from compat_tests.support.programs.environment import make_environment
from compat_tests.support.programs.running import Outcome, Run, Task
from compat_tests.support.recordings import RECORDINGS, load, write_wav


@click.command()
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(min=1))
@click.option("--model", default="base", show_default=True, type=click.Choice(["tiny.en", "base"]))
@click.option(
    "--recording",
    default="two_minutes",
    show_default=True,
    type=click.Choice([one.name for one in RECORDINGS.values() if one.language == "en"]),
)
@click.option("--compute-type", default="int8", show_default=True)
@click.option("--program", "names", multiple=True, help="Only this one; several times for more.")
@results_option
def main(
    rounds: int,
    model: str,
    recording: str,
    compute_type: str,
    names: tuple[str, ...],
    results: Path,
) -> None:
    """Runs each program stock and swapped in, in turns, and prints and keeps the medians.

    Of a command the whole is timed, from its start to its end; of a server its answer.
    """
    programs = [one for one in PROGRAMS if not names or one.name in names]
    if not programs:
        raise click.BadParameter(f"choose from {', '.join(one.name for one in PROGRAMS)}")
    rows: list[dict[str, Any]] = []
    settings = {"model": model, "recording": recording, "compute_type": compute_type}
    record = begin("programs", model, **settings, programs=rows)
    with tempfile.TemporaryDirectory(prefix="whisper-max-programs-") as name:
        folder = Path(name)
        audio = folder / "speech.wav"
        write_wav(audio, load(recording))
        python = make_environment(folder / "environment", programs)
        task = Task(python, model_directory(model), audio, compute_type)
        click.echo(f"| Program | Version | Mode | Stock | On MAX | Speed-up |\n{'|---' * 6}|")
        for program in programs:
            for mode in program.modes:
                turns = folder / f"{program.name} {mode}"
                rows.append(measure(program, mode, task, turns, rounds))
                record.keep(results)
                click.echo(markdown(rows[-1]))
    record.finish(results)


def measure(
    program: Program, mode_name: str, task: Task, folder: Path, rounds: int
) -> dict[str, Any]:
    """Both sides in turns, after once each that is not counted."""
    mode = program.modes[mode_name]
    times: dict[bool, list[float]] = {False: [], True: []}
    with (
        asked(task, mode, folder / "stock", False) as stock,
        asked(task, mode, folder / "swapped", True) as swapped,
    ):
        stock()
        swapped()
        for _ in range(rounds):
            for is_swapped, once in ((False, stock), (True, swapped)):
                time.sleep(PAUSE)
                times[is_swapped].append(once().seconds)
    stock_s, ours_s = statistics.median(times[False]), statistics.median(times[True])
    return {
        "program": program.name,
        "version": program.version,
        "mode": mode_name,
        "timed": "command" if mode.client is None else "answer",
        "rounds": rounds,
        "stock_s": stock_s,
        "ours_s": ours_s,
        "ratio": stock_s / ours_s,
        "all_stock_s": times[False],
        "all_ours_s": times[True],
    }


@contextlib.contextmanager
def asked(task: Task, mode: Mode, folder: Path, swapped: bool) -> Iterator[Callable[[], Outcome]]:
    """A call that runs the program once, or asks the server that it is."""
    if mode.client is not None:
        run = Run(task, mode, folder, swapped=swapped)
        with run.serve():
            yield run.ask
        run.check_engine()
        return

    def once() -> Outcome:
        with tempfile.TemporaryDirectory(dir=folder) as name:
            run = Run(task, mode, Path(name), swapped=swapped)
            outcome = run.finish()
            run.check_engine()
        return outcome

    folder.mkdir(parents=True)
    yield once


def markdown(row: dict[str, Any]) -> str:
    """A line of the table in docs/programs.md."""
    times = f"{row['stock_s']:.2f} s | {row['ours_s']:.2f} s | {row['ratio']:.1f}"
    return f"| {row['program']} | {row['version']} | {row['mode']} | {times} |"
