"""``python -m benchmarks corpus CHECK...``: the promises of `whisper-max corpus`, in full.

The record has what each check found, by its name; `CHECKS` says what they do.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from benchmarks.corpus import deaths, growth, planner
from benchmarks.record import begin, results_option

CHECKS: dict[str, Callable[[Path], tuple[dict[str, Any], list[str]]]] = {
    "machines": deaths.machines,
    "commands": deaths.commands,
    "disk": deaths.disk,
    "damaged": deaths.damaged,
    "overhead": growth.overhead,
    "growth": growth.growth,
    "plan": planner.plan,
}
"""Each gets an empty folder, and tells figures and the promises that do not hold."""


@click.command()
@click.argument("checks", nargs=-1, type=click.Choice(list(CHECKS)))
@results_option
def main(checks: tuple[str, ...], results: Path) -> None:
    """Run CHECKS, or all of them. 1 if a promise does not hold."""
    for name in checks or CHECKS:
        record = begin("corpus", name)
        with tempfile.TemporaryDirectory() as folder:
            found, broken = CHECKS[name](Path(folder))
        record.found.update(found)
        record.found["broken"] = broken
        print(f"{name}: {found}, kept in {record.keep(results)}")
        for promise in broken:
            print(f"does not hold: {promise}")
        if broken:
            raise SystemExit(1)


if __name__ == "__main__":
    main()
