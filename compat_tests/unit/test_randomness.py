"""A failure says which seed makes its random inputs again."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from compat_tests.support import randomness

ROOT = Path(__file__).parents[2]
TESTS = """
from compat_tests.support.randomness import rng

def test_before():
    rng().normal(size=3)

def test_failing():
    assert not f"drawn: {rng().integers(1 << 60)}"
"""


def failure(folder: Path, *arguments: str, **variables: str) -> tuple[str, str]:
    """The seed and the number that a failing test prints."""
    (folder / "test_some.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-p", "compat_tests.conftest", *arguments]
    environment = {name: value for name, value in os.environ.items() if name != randomness.VARIABLE}
    done = subprocess.run(
        [*command, "--rootdir", str(folder), str(folder)],
        cwd=ROOT,
        env={**environment, **variables},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    (seed,) = re.findall(rf"{randomness.VARIABLE}=(\d+)", done.stdout)
    return seed, re.findall(r"drawn: \d+", done.stdout)[0]


def test_a_failure_tells_its_seed(tmp_path: Path) -> None:
    """With which the test, alone or among others, draws what it has drawn."""
    seed, drawn = failure(tmp_path)
    assert failure(tmp_path, "-k", "failing", **{randomness.VARIABLE: seed}) == (seed, drawn)
    assert failure(tmp_path)[1] != drawn
