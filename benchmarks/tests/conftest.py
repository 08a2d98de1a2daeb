"""What several tests of the benchmarks need."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with one commit."""
    root = tmp_path / "repository"
    (root / "benchmarks" / "results").mkdir(parents=True)
    (root / "code.py").write_text("a = 1\n")
    settings = ("-c", "user.name=Tests", "-c", "user.email=tests@example.org")
    for command in (("init", "-q"), ("add", "."), ("commit", "-q", "-m", "First")):
        subprocess.run(["git", *settings, *command], cwd=root, check=True)
    return root
