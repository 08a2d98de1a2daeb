"""``python -m benchmarks installed``: a wheel with compiled graphs, where nothing is cached yet.

The record has the seconds of each start with empty caches (``empty_s``) and of the next one
(``later_s``), and whether something was ``compiled``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import click
from rich.console import Console

from benchmarks.new_process import first_text
from benchmarks.record import ROOT, begin, results_option
from compat_tests.support.models import model_directory
from compat_tests.support.recordings import audio_file
from whisper_max_backend.engine.compile.cpu_target import best_target
from whisper_max_backend.system.cpu_features import processor_features

LIMIT = 1.0
"""Seconds that the first start may take more than a later one."""
_CACHES = ("HOME", "XDG_CACHE_HOME", "WHISPER_MAX_CACHE")


@click.command()
@click.option("--model", "name", default="tiny.en", show_default=True, help="base or tiny.en.")
@click.option("--compute-type", default="int8", show_default=True)
@click.option("--rounds", default=5, show_default=True)
@results_option
def main(name: str, compute_type: str, rounds: int, results: Path) -> None:
    """From process start to text, with empty caches and again; 1 if the first is too slow."""
    console = Console()
    record = begin("installed", name, model=name, compute_type=compute_type)
    target = best_target(processor_features())
    with tempfile.TemporaryDirectory(prefix="whisper-max-installed-") as scratch:
        console.print(f"building a wheel for {target}")
        wheel = _build(Path(scratch), target)
        size = wheel.stat().st_size
        console.print(f"installing {wheel.name}, {size / 1e6:.1f} MB")
        python = _install(Path(scratch, "venv"), wheel)
        arguments = (
            *("whisper_max_backend", str(model_directory(name)), str(audio_file("jfk.flac"))),
            *("0", compute_type),
        )
        first_text(*arguments, python=python)  # brings the files into the system's memory
        empty: list[float] = []
        later: list[float] = []
        compiled = False
        for turn in range(rounds):
            caches = Path(scratch, f"caches-{turn}")
            caches.mkdir()
            variables = {variable: str(caches / variable) for variable in _CACHES}
            empty.append(first_text(*arguments, python=python, variables=variables)[1])
            compiled |= any(caches.rglob("*.mef"))
            later.append(first_text(*arguments, python=python, variables=variables)[1])
    difference = median(empty) - median(later)
    broken = ["graphs were compiled that the wheel should have brought"] if compiled else []
    if difference > LIMIT:
        broken.append(f"the first start takes {difference:.2f} s more than a later one")
    record.found |= {
        "wheel_bytes": size,
        "empty_s": empty,
        "later_s": later,
        "difference_s": difference,
        "compiled": compiled,
        "broken": broken,
    }
    print(
        f"process start to text: {median(empty):.2f} s with empty caches, {median(later):.2f} s "
        f"later, {difference:+.2f} s (at most {LIMIT:.0f} s)"
    )
    record.finish(results)


def _build(folder: Path, target: str) -> Path:
    """A wheel with the graphs for one processor."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        env={**os.environ, "WHISPER_MAX_PREBUILD": target},
        check=True,
    )
    (wheel,) = folder.glob("*.whl")
    return wheel


def _install(folder: Path, wheel: Path) -> str:
    """An environment that has the wheel and what it needs; its interpreter."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = str(folder / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "-q", str(wheel)], check=True)
    return python
