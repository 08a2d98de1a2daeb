"""A manifest of ten million recordings, planned."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from compat_tests.support.memory import memory

ROWS = 10_000_000
SECONDS = 600.0
GIGABYTES = 8.0
"""What it may take."""


def plan(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Written, read again, planned, and gone on with."""
    manifest = folder / "manifest.jsonl"
    with open(manifest, "w") as file:
        for number in range(ROWS):
            path = f"/archive/{number % 1000:03d}/{number:08d}.opus"
            duration = 1 + number * 7919 % 71  # 36 s on average: 100,000 hours
            file.write(f'{{"audio_filepath": "{path}", "duration": {duration}}}\n')
    program = "from benchmarks.corpus.planner import measure; measure()"
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)], check=True, stdout=subprocess.PIPE
    )
    found: dict[str, Any] = json.loads(done.stdout)
    found["manifest_bytes"] = manifest.stat().st_size
    broken = []
    if found["plan_s"] > SECONDS or found["peak_gb"] > GIGABYTES:
        broken.append(f"planning takes {found['plan_s']:.0f} s and {found['peak_gb']:.1f} GB")
    return found, broken


def measure() -> None:
    """Prints seconds and peak memory of this process, as JSON."""
    from whisper_max_backend.corpus.plan import Plan, rows_of
    from whisper_max_backend.corpus.readers import readers

    folder = Path(sys.argv[1])
    manifest = str(folder / "manifest.jsonl")
    found = {}
    made = Plan(folder / "plan")
    begun = time.perf_counter()
    assert made.extend(rows_of([manifest], readers())) == ROWS
    found["plan_s"] = time.perf_counter() - begun
    found["peak_gb"] = _peak()
    begun = time.perf_counter()
    assert made.extend(rows_of([manifest], readers())) == 0
    found["again_s"] = time.perf_counter() - begun
    begun = time.perf_counter()
    found["shards"] = sum(1 for _ in made.shards())
    found["walk_s"] = time.perf_counter() - begun
    found["peak_again_gb"] = _peak()
    found["plan_bytes"] = sum(path.stat().st_size for path in made.folder.iterdir())
    print(json.dumps(found))


def _peak() -> float:
    return memory("VmHWM") / 1e9
