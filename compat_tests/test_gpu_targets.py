"""The graphs of GPUs compile, for makes and generations that need not be here."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("target", ["sm_80", "sm_89", "sm_90", "gfx942"])
def test_compiles(target: str) -> None:
    command = [sys.executable, "-m", "compat_tests.support.gpu_target", target]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-4000:]
    assert {"log_mel", "probabilities", "step_few", "step_few_int8"} <= set(result.stdout.split())
