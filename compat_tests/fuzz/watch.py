"""Looks at every input of a process: its outcome, its time, the memory it took.

What is found goes to a folder; the counts to a file that outlives the process.
"""

from __future__ import annotations

import json
import os
import re
import resource
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from compat_tests.support.memory import memory

HANG_SECONDS = 10.0
GROWTH_BYTES = 1 << 30
_CEILING_BYTES = 3 << 30  # the machine has to survive what is found


class Watch:
    """Counts, and keeps what fails.

    Args:
        folder: For the inputs that fail.
        counts: File for the counts.
        target: Name of the target.
    """

    def __init__(self, folder: Path, counts: Path, target: str) -> None:
        self._folder = folder
        self._counts = counts
        self._target = target
        self._outcomes: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()
        self._slowest = 0.0
        self._peak = 0
        _reset_peak()
        self._before = memory("VmRSS")
        ceiling = memory("VmSize") + _CEILING_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (ceiling, ceiling))

    @property
    def inputs(self) -> int:
        """How many there were."""
        return self._outcomes.total()

    def run(self, data: bytes, check: Callable[[], str]) -> None:
        """Check one input; `data` is what is kept of it if it fails."""
        start = time.perf_counter()
        try:
            outcome = check()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # also what Rust and C extensions raise
            outcome = "failed"
            self._keep(_signature(error), data, "".join(traceback.format_exception(error)))
        self._outcomes[outcome] += 1
        seconds = time.perf_counter() - start
        self._slowest = max(self._slowest, seconds)
        if seconds > HANG_SECONDS:
            self._keep("hang", data, f"{seconds:.1f} s")
        growth = memory("VmHWM") - self._before
        self._peak = max(self._peak, growth)
        if growth > GROWTH_BYTES:
            self._keep("memory", data, f"{growth / 2**20:.0f} MB")
            _reset_peak()
        self._write()

    def _keep(self, signature: str, data: bytes, report: str) -> None:
        self._failures[signature] += 1
        path = self._folder / f"{self._target}-{signature}"
        if not path.exists():
            path.write_bytes(data)
            path.with_name(path.name + ".txt").write_text(report, errors="backslashreplace")
            print(f"{path}: {report.strip().splitlines()[-1]}", file=sys.stderr, flush=True)

    def _write(self) -> None:
        counts = {
            "inputs": self.inputs,
            "outcomes": self._outcomes,
            "failures": self._failures,
            "slowest_s": round(self._slowest, 3),
            "growth_mb": round(self._peak / 2**20),
        }
        draft = self._counts.with_suffix(".draft")
        draft.write_text(json.dumps(counts))
        os.replace(draft, self._counts)


def _signature(error: BaseException) -> str:
    """The kind of a failure: type and place, so that one input of each is kept."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "whisper_max_backend" in Path(frame.filename).parts]
    place = (ours or frames)[-1]
    signature = f"{type(error).__name__}-{Path(place.filename).name}-{place.name}-{place.lineno}"
    return re.sub(r"[^\w.-]", "", signature)


def _reset_peak() -> None:
    """Let VmHWM start anew."""
    Path("/proc/self/clear_refs").write_text("5")
