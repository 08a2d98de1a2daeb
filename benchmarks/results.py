"""What every file of results says about the run, and where it is kept."""

from __future__ import annotations

import json
import os
import platform
import re
from datetime import date, datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pytest_benchmark.utils import get_commit_info

from benchmarks.limits import cores, processor
from whisper_max_backend.engine.cpu_target import describe_kernels

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("whisper-max-backend", "max", "faster-whisper", "ctranslate2", "numpy")
PEERS = ("openvino-genai", "pywhispercpp", "transformers", "torch", "openai-whisper")


def about_this_run() -> dict[str, Any]:
    """Date, commit, machine, versions, load."""
    commit = get_commit_info()
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": commit.get("id"),
        "uncommitted_changes": commit.get("dirty"),
        "machine": {
            "name": machine_name(),
            "processor": processor(),
            "cores": cores(),
            "system": platform.system(),
            "kernels": describe_kernels(),
        },
        "versions": {"python": platform.python_version(), **_versions()},
        "load_average": {"before": os.getloadavg()},
    }


def machine_name() -> str:
    """Processor and cores, as part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", f"{processor()} {cores()} cores".lower()).strip("-")


def results_path(kind: str) -> Path:
    """Where today's results of a kind go unless told otherwise."""
    return RESULTS / f"{date.today().isoformat()}-{kind}-{machine_name()}.json"


def save(kept: dict[str, Any], kind: str, path: Path | None = None) -> Path:
    """Write results, with the load that there is now; returns where they are."""
    target = path or results_path(kind)
    kept["load_average"]["after"] = os.getloadavg()
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(kept, indent=1) + "\n")
    return target


def _versions() -> dict[str, str]:
    found = {}
    for package in (*PACKAGES, *PEERS):
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # a peer that is not installed
            continue
    return found
