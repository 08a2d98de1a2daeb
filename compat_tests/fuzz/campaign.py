"""Fuzzes a target in processes that may crash, and sums up what became of the inputs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

_DEATHS = 50  # of processes, after which a campaign ends
_MODULES = {
    "readers": ("compat_tests.fuzz.worker", "readers"),
    "sounds": ("compat_tests.fuzz.worker", "sounds"),
    "calls": ("compat_tests.fuzz.calls",),
}
_WORDS = 4000  # characters of what a process said first and last that are kept when it dies


@dataclass
class Summary:
    """Of a campaign; `growth_mb` is the most memory that an input took, in MB."""

    target: str
    seed: int
    inputs: int = 0
    seconds: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    growth_mb: int = 0
    findings: str = ""

    def add(self, counts: Path) -> None:
        """Add what a process left."""
        found = json.loads(counts.read_text())
        self.inputs += found["inputs"]
        self.outcomes.update(found["outcomes"])
        self.failures.update(found["failures"])
        self.slowest_s = max(self.slowest_s, found["slowest_s"])
        self.growth_mb = max(self.growth_mb, found["growth_mb"])
        counts.unlink()

    def line(self) -> str:
        """As JSON."""
        return json.dumps(vars(self))


def fuzz(
    target: str, runs: int, seconds: float, seed: int, findings: Path, repeat: bool = False
) -> Summary:
    """Give a target `runs` inputs, or as many as there is time for; 0 stands for no limit.

    A process that dies is a failure, and another one goes on from there. What fails is kept in
    `findings`. With `repeat`, the inputs depend on the seed alone.
    """
    summary = Summary(target, seed, findings=str(findings))
    findings.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    deaths = 0
    with tempfile.TemporaryDirectory(prefix="whisper-max-fuzz-", dir=memory_folder()) as scratch:
        while deaths <= _DEATHS:
            left = runs - summary.inputs if runs else -1
            time_left = int(seconds - summary.seconds) if seconds else 0
            if (runs and left <= 0) or (seconds and time_left <= 0):
                break
            before = summary.inputs
            deaths += _work(summary, Path(scratch), left, time_left, seed + deaths, repeat)
            if summary.inputs == before:  # it does not even start
                break
            summary.seconds = round(time.monotonic() - start, 1)
    return summary


def _work(
    summary: Summary, scratch: Path, runs: int, seconds: int, seed: int, repeat: bool
) -> bool:
    """One process, to its end; whether it died."""
    environment = dict(os.environ, PYTHONHASHSEED="0", OMP_NUM_THREADS="1")
    environment["TMPDIR"] = str(scratch)
    log = scratch / "log"
    with log.open("wb") as out:
        done = subprocess.run(
            [sys.executable, "-m", *_MODULES[summary.target], str(scratch), summary.findings]
            + [str(runs), str(seconds), str(seed), "repeat" if repeat else ""],
            stdout=out,
            stderr=subprocess.STDOUT,
            env=environment,
        )
    counts = scratch / "counts.json"
    if counts.exists():
        summary.add(counts)
    if done.returncode:
        words = log.read_text(errors="backslashreplace")
        if len(words) > 2 * _WORDS:
            words = f"{words[:_WORDS]}\n[…]\n{words[-_WORDS:]}"
        summary.failures[f"the process ended with {done.returncode}"] += 1
        path = Path(summary.findings, f"{summary.target}-process-{seed}.txt")
        path.write_text(words)
        print(f"{path}:\n{words}", file=sys.stderr)
    return done.returncode != 0


def memory_folder() -> str | None:
    """A folder in memory, where there is one."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
