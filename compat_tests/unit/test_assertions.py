"""The kernels in a debug build, in which every access of memory is asserted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

UNIT = Path(__file__).parent

WRONG_ID = """
import numpy as np

from compat_tests.support.asserted import assert_all
from compat_tests.support.kernel_graph import Kernels

assert_all()
print(Kernels(threads=1)("probabilities", np.zeros((1, 1, 9)), [[[9]]], [9]))
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=UNIT.parents[1])


TESTS = {
    "kernels": ["test_kernels.py", "test_decoding_kernels.py"],
    "networks": ["test_network.py", "-k", "int8"],
    "steps": ["test_lookahead.py", "-k", "replayed or int8"],  # compiled for the networks, too
}


@pytest.mark.parametrize("tests", TESTS.values(), ids=TESTS)
def test_kernels_stay_inside_their_memory(tests: list[str]) -> None:
    """Tests of theirs, once more with assertions."""
    tests = [str(UNIT / test) if test.endswith(".py") else test for test in tests]
    done = run("-m", "compat_tests.support.asserted", "-q", "-x", "-p", "no:cacheprovider", *tests)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def test_a_wrong_index_is_noticed() -> None:
    """The vocabulary has ids 0 to 8."""
    done = run("-c", WRONG_ID)
    assert done.returncode != 0
    assert "index 9, 1 wide, of a view of 9" in done.stdout + done.stderr
    assert "token_probabilities.mojo" in done.stdout + done.stderr
