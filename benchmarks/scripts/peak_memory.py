"""Transcribes once, then prints the most memory that its process had resident, in bytes.

``python -m benchmarks.scripts.peak_memory MODULE FOLDER RECORDING THREADS TYPE``
"""

from __future__ import annotations

import re
import resource
import sys
from importlib import import_module
from pathlib import Path

from benchmarks.speech import speech

_STATUS = Path("/proc/self/status")


def peak_bytes() -> int:
    """The most memory that this process ever had resident."""
    if _STATUS.is_file():  # the other figure counts what was there before this program, too
        found = re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text())
        assert found is not None
        return 1024 * int(found[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def main(module: str, folder: str, recording: str, threads: str, compute_type: str) -> None:
    """Load a model, transcribe once, and tell."""
    model = import_module(module).WhisperModel(
        folder, device="cpu", compute_type=compute_type, cpu_threads=int(threads)
    )
    segments, _ = model.transcribe(
        speech(recording), language="en", temperature=0.0, condition_on_previous_text=False
    )
    assert list(segments)
    print(peak_bytes())


if __name__ == "__main__":
    main(*sys.argv[1:])
