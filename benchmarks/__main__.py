"""``python -m benchmarks [pytest options]``: measures, prints a table, keeps the figures."""

from __future__ import annotations

import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.plot import plot
from benchmarks.record import describe_run, keep, result_path

WIDTH = 120
"""Columns that the table needs."""


class Recorder:
    """Keeps what every benchmark has found as soon as it has: a run may be cut short."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.kept: dict[str, Any] = {**describe_run(), "benchmarks": self.rows}
        self.path = result_path("cpu", self.kept)

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
            keep(self.kept, self.path)
        return (yield)


def main(arguments: list[str]) -> int:
    """Runs the benchmarks; 0 if all of them ran and held what they assert."""
    recorder = Recorder()
    folder = Path(__file__).parent
    options = ["-q", "--benchmark-quiet", f"--ignore={folder / 'tests'}"]
    code = pytest.main([str(folder), *options, *arguments], plugins=[recorder])
    if not recorder.rows:
        return int(code) or 1
    console = Console()
    console.width = max(console.width, WIDTH)
    console.print(table(recorder.kept))
    for row in recorder.rows:
        if "programs" in row:
            console.print(table_of_programs(row))
    picture = recorder.path.with_suffix(".svg")
    plot(recorder.kept, picture)
    print(f"kept in {recorder.path}, drawn in {picture}")
    return int(code)


def table(kept: dict[str, Any]) -> Table:
    """Medians of both sides, their ratio, and how near to a limit ours comes."""
    machine = kept["machine"]
    title = f"{machine['processor']}, {machine['cores']} cores"
    before, after = (kept["load_average"][when][0] for when in ("before", "after"))
    result = Table(title=title, caption=f"load average {before:.1f} before, {after:.1f} after")
    for column in ("group", "case"):
        result.add_column(column, overflow="fold")
    for column in ("ours", "stock", "its threads", "ratio", "x real time", "of the limit"):
        result.add_column(column, justify="right")
    group = None
    for row in kept["benchmarks"]:
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


def table_of_programs(row: dict[str, Any]) -> Table:
    """Every program in one case, slowest last; below, those that are absent with the reason."""
    absent = "\n".join(f"{name}: {reason}" for name, reason in row["absent"].items())
    result = Table(title=escape(row["name"].removeprefix("test_")), caption=escape(absent))
    result.add_column("program")
    for column in ("time", "of ours", "words unlike ours"):
        result.add_column(column, justify="right")
    for program in sorted(row["programs"], key=lambda program: program["seconds"]):
        result.add_row(
            program["name"],
            seconds(program["seconds"]),
            f"{program['ratio']:.2f}",
            f"{program['words_unlike_ours']:.1%}",
        )
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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
