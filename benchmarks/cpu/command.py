"""``python -m benchmarks cpu [pytest options]``: stock faster-whisper and this package in turns.

The record's ``benchmarks`` are rows: a benchmark's ``group``, ``name`` and ``rounds``; medians of
seconds, ``ours_s`` and ``reference_s`` (or ``_bytes``); ``ratio``, which is reference / ours.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import click
import pytest
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.record import Record, begin, results_option

WIDTH = 120
"""Columns that the table needs."""
_HELD = "WHISPER_MAX_CPU_TARGET"


class Recorder:
    """Keeps what every benchmark has found as soon as it has: a run may be cut short."""

    def __init__(self, record: Record, results: Path) -> None:
        self.rows: list[dict[str, Any]] = []
        self.record = record
        self.results = results
        record.found["benchmarks"] = self.rows

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, object, object]:
        """Takes the figures before the fixture that holds them is gone."""
        benchmark = getattr(item, "funcargs", {}).get("benchmark")
        if benchmark is not None and benchmark.stats is not None:
            self.rows.append(
                {
                    "group": benchmark.group,
                    "name": benchmark.name,
                    "rounds": benchmark.stats.stats.rounds,
                    **benchmark.extra_info,
                }
            )
            self.record.keep(self.results)
        return (yield)


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
@click.option("--rounds", type=click.IntRange(min=1), help="Instead of each benchmark's own.")
@results_option
def main(options: tuple[str, ...], rounds: int | None, results: Path) -> None:
    """Time every stage and whole transcriptions, beside stock faster-whisper.

    OPTIONS are pytest's, -k "step and tiny" chooses some. The status is 0 if all of them ran and
    held what they assert.
    """
    held = os.environ.get(_HELD)
    recorder = Recorder(begin("cpu", f"as {held}" if held else ""), results)
    arguments = [str(Path(__file__).parent), "-q", "--benchmark-quiet", *options]
    if rounds:
        arguments.append(f"--rounds={rounds}")
    code = pytest.main(arguments, plugins=[recorder])
    if not recorder.rows:
        sys.exit(int(code) or 1)
    console = Console()
    console.width = max(console.width, WIDTH)
    console.print(table(recorder.record))
    print(f"kept in {recorder.record.keep(results)}")
    sys.exit(int(code))


def table(record: Record) -> Table:
    """Medians of both sides, their ratio, and how near to a limit ours comes."""
    machine = record.machine
    title = f"{machine['processor']}, {machine['cores']} cores"
    before, after = (record.load_average[when] for when in ("before", "after"))
    result = Table(title=title, caption=f"load average {before:.1f} before, {after:.1f} after")
    for column in ("group", "case"):
        result.add_column(column, overflow="fold")
    for column in ("ours", "stock", "its threads", "ratio", "x real time", "of the limit"):
        result.add_column(column, justify="right")
    group = None
    for row in record.found["benchmarks"]:
        if "ratio" not in row:
            continue
        speed = row.get("real_time_factor")
        result.add_row(
            row["group"] if row["group"] != group else "",
            escape(row["name"].removeprefix("test_")),
            *(amount(row, side) for side in ("ours", "reference")),
            str(row.get("reference_threads", "")),
            f"{row['ratio']:.2f}",
            f"{1 / speed:.0f}" if speed else "",
            limit(row),
        )
        group = row["group"]
    return result


def amount(row: dict[str, Any], side: str) -> str:
    """What a side needed: time, or memory."""
    if f"{side}_bytes" in row:
        return f"{row[f'{side}_bytes'] / 1e6:.0f} MB"
    return seconds(row[f"{side}_s"])


def seconds(time: float) -> str:
    """A time in seconds or milliseconds."""
    return f"{time:.2f} s" if time >= 1 else f"{1000 * time:.1f} ms"


def limit(row: dict[str, Any]) -> str:
    """What is achieved of what the machine can do, where that is known."""
    if "gflops" in row:
        of_onednn = f", {row['of_onednn']:.0%} of oneDNN" if "of_onednn" in row else ""
        return f"{row['gflops']:.0f} GFLOP/s, {row['of_limit']:.0%}{of_onednn}"
    if "gigabytes_per_s" in row:
        return f"{row['gigabytes_per_s']:.1f} GB/s, {row['of_limit']:.0%}"
    return ""
