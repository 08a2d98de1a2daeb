"""``python -m benchmarks [pytest options]``: measures, prints a table, keeps the figures."""

from __future__ import annotations

import json
import os
import platform
import re
import sys
import tempfile
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.limits import cores

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("whisper-max-backend", "max", "faster-whisper", "ctranslate2", "numpy")
WIDTH = 120
"""Columns that the table needs."""


def main(arguments: list[str]) -> int:
    """Runs the benchmarks; 0 if all of them ran and held what they assert."""
    load = os.getloadavg()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        options = ["-q", "--benchmark-quiet", f"--benchmark-json={report}"]
        code = pytest.main([str(Path(__file__).parent), *options, *arguments])
        if not report.is_file() or not report.stat().st_size:
            return int(code) or 1
        measured = json.loads(report.read_text())
    if not measured["benchmarks"]:
        return int(code) or 1
    kept = summary(measured, load)
    console = Console()
    console.width = max(console.width, WIDTH)
    console.print(table(kept))
    RESULTS.mkdir(exist_ok=True)
    name = f"{date.today().isoformat()}-cpu-{kept['machine']['name']}.json"
    (RESULTS / name).write_text(json.dumps(kept, indent=1) + "\n")
    print(f"kept in {RESULTS / name}")
    return int(code)


def summary(measured: dict[str, Any], load: tuple[float, float, float]) -> dict[str, Any]:
    """What is kept of pytest-benchmark's report."""
    brand = measured["machine_info"]["cpu"].get("brand_raw") or platform.machine()
    return {
        "date": measured["datetime"],
        "commit": measured["commit_info"].get("id"),
        "uncommitted_changes": measured["commit_info"].get("dirty"),
        "machine": {
            "name": re.sub(r"[^a-z0-9]+", "-", f"{brand} {cores()} cores".lower()).strip("-"),
            "processor": brand,
            "cores": cores(),
            "system": platform.system(),
        },
        "versions": {
            "python": platform.python_version(),
            **{package: version(package) for package in PACKAGES},
        },
        "load_average": {"before": load, "after": os.getloadavg()},
        "benchmarks": [
            {
                "group": benchmark["group"],
                "name": benchmark["name"],
                "rounds": benchmark["stats"]["rounds"],
                **benchmark["extra_info"],
            }
            for benchmark in measured["benchmarks"]
        ],
    }


def table(kept: dict[str, Any]) -> Table:
    """Medians of both sides, their ratio, and how near to a limit ours comes."""
    machine = kept["machine"]
    title = f"{machine['processor']}, {machine['cores']} cores"
    before, after = (kept["load_average"][when][0] for when in ("before", "after"))
    result = Table(title=title, caption=f"load average {before:.1f} before, {after:.1f} after")
    for column in ("group", "case"):
        result.add_column(column)
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
            seconds(row["ours_s"]),
            seconds(row["reference_s"]),
            str(row.get("reference_threads", "")),
            f"{row['ratio']:.2f}",
            f"{1 / speed:.0f}" if speed else "",
            limit(row),
        )
        group = row["group"]
    return result


def seconds(time: float) -> str:
    """A time in seconds or milliseconds."""
    return f"{time:.2f} s" if time >= 1 else f"{1000 * time:.1f} ms"


def limit(row: dict[str, Any]) -> str:
    """What is achieved of what the machine can do, where that is known."""
    if "gflops" in row:
        return f"{row['gflops']:.0f} GFLOP/s, {row['of_limit']:.0%}"
    if "gigabytes_per_s" in row:
        return f"{row['gigabytes_per_s']:.1f} GB/s, {row['of_limit']:.0%}"
    return ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
