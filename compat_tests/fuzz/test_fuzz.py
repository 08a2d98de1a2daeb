"""The bounded part of the fuzzers, the same inputs each time.

WHISPER_MAX_FUZZ_SEED chooses others; `python -m compat_tests.fuzz` runs for as long as you like.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SEED = os.environ.get("WHISPER_MAX_FUZZ_SEED", "0")


@pytest.mark.parametrize(("target", "runs"), [("readers", 8000), ("sounds", 1500), ("calls", 400)])
def test_no_input_does_harm(target: str, runs: int, tmp_path: Path) -> None:
    """No crash, no hang, no gigabyte, no exception that it should not be."""
    if target != "calls":
        pytest.importorskip("atheris", reason="atheris has wheels for Linux on x86-64 only")
    done = subprocess.run(
        [sys.executable, "-m", "compat_tests.fuzz", "--repeat", "--seed", SEED]
        + ["--findings", str(tmp_path), target, "--runs", str(runs)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    print(f"WHISPER_MAX_FUZZ_SEED={SEED}", done.stdout, done.stderr, sep="\n")
    summary = json.loads(done.stdout)
    assert not summary["failures"]
    assert done.returncode == 0
    assert runs <= summary["inputs"] < 2 * runs
