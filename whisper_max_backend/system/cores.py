"""How many threads compute."""

from __future__ import annotations

import os


def thread_count(threads: int) -> int:
    """As many as are asked for; if 0, as many as OMP_NUM_THREADS says, or one for each core."""
    if threads > 0:
        return threads
    chosen = os.environ.get("OMP_NUM_THREADS", "")
    if chosen.isdecimal() and int(chosen) > 0:
        return int(chosen)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
