"""The graphs of GPUs compile, for makes and generations that need not be here."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

BOTH = ("bfloat16", "int8")
# NVIDIA's generations get the same steps, so that each compiles a part, and Hopper its proofs.
TARGETS = {"sm_80": ("int8",), "sm_89": ("bfloat16",), "sm_90": (), "gfx942": BOTH}
PROOFS = {"products", "steps", "attention_of_steps", "attention_of_prompts", "warpgroups", "chains"}


@pytest.mark.parametrize("target", TARGETS)
def test_compiles(target: str) -> None:
    kept = TARGETS[target]
    command = [sys.executable, "-m", "compat_tests.support.gpu_target", target, *kept]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-4000:]
    steps = {"log_mel", "probabilities", *(f"step_few_{one}" for one in kept)}
    assert (steps if kept else PROOFS) <= set(result.stdout.split())
