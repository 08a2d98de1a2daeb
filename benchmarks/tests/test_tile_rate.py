"""The program that measures AMX compiles, for processors that have it."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.cpu.limits import build_tile_rate


@pytest.mark.slow
def test_it_compiles_against_the_kernels(tmp_path: Path) -> None:
    assert build_tile_rate(tmp_path).is_file()
