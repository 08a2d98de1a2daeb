"""The machine that a benchmark runs on."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import Any

_PROCESSORS = Path("/proc/cpuinfo")


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor() -> str:
    """Its name."""
    for line in _PROCESSORS.read_text().splitlines() if _PROCESSORS.is_file() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def describe_machine() -> dict[str, Any]:
    """Processor, cores, system, what the kernels use of the processor, and a name for it all."""
    # Imported late: some commands set what MAX reads when it is imported.
    from whisper_max_backend.engine.compile.cpu_target import describe_kernels

    return {
        "name": slug(f"{processor()} {cores()} cores"),
        "processor": processor(),
        "cores": cores(),
        "system": platform.system(),
        "kernels": describe_kernels(),
    }


def slug(name: str) -> str:
    """A name as part of a file's name."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")
