"""What is kept of a measurement beside its figures, and where."""

from __future__ import annotations

import json
import os
import platform
import re
import sys
from datetime import date, datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

from pytest_benchmark.utils import get_commit_info

from benchmarks.limits import cores, processor
from whisper_max_backend.engine.compile.cpu_target import describe_kernels

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("whisper-max-backend", "max", "faster-whisper", "ctranslate2", "numpy")


def describe_run() -> dict[str, Any]:
    """When, of which commit, on which machine, with which versions, under which load."""
    brand = processor()
    commit = get_commit_info()
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": commit.get("id"),
        "uncommitted_changes": commit.get("dirty"),
        "machine": {
            "name": re.sub(r"[^a-z0-9]+", "-", f"{brand} {cores()} cores".lower()).strip("-"),
            "processor": brand,
            "cores": cores(),
            "system": platform.system(),
            "kernels": describe_kernels(),
        },
        "versions": {
            "python": platform.python_version(),
            **{package: version(package) for package in PACKAGES},
        },
        "load_average": {"before": os.getloadavg()},
    }


def result_path(kind: str, described: dict[str, Any]) -> Path:
    """Where a measurement of this kind is kept, by day and machine; earlier ones stay."""
    name = f"{date.today().isoformat()}-{kind}-{described['machine']['name']}"
    path = RESULTS / f"{name}.json"
    number = 2
    while path.exists():
        path = RESULTS / f"{name}-{number}.json"
        number += 1
    return path


def finish(described: dict[str, Any], path: Path) -> NoReturn:
    """Keeps a measurement, tells where, and which promises are ``broken``; with 1 if any is."""
    keep(described, path)
    print(f"kept in {path}")
    for promise in described["broken"]:
        print(f"does not hold: {promise}")
    sys.exit(1 if described["broken"] else 0)


def keep(described: dict[str, Any], path: Path) -> None:
    """Writes what there is so far: a run may be cut short."""
    described["load_average"]["after"] = os.getloadavg()
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(described, indent=1) + "\n")
