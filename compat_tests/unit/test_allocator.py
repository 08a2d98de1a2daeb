"""What the C library does with memory that is freed."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from whisper_max_backend.system.allocator import return_large_blocks

PROGRAM = """
import sys
import numpy as np
from compat_tests.support.memory import memory
from whisper_max_backend.system.allocator import return_large_blocks
if sys.argv[1] == "returned":
    return_large_blocks()
del (first := [np.ones(30 << 20, np.uint8)])[:]
before = memory("VmRSS")
second, last = np.ones(20 << 20, np.uint8), np.ones(1 << 20, np.uint8)
del second
print(memory("VmRSS") - before)
"""


def left(mode: str) -> int:
    """Bytes that a process has more after it has freed a block of 20 MB."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, mode], check=True, stdout=subprocess.PIPE, text=True
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries stay as they are")
def test_large_blocks_go_back() -> None:
    assert left("kept") > 15 << 20
    assert left("returned") < 5 << 20


def test_other_libraries_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda _: object())
    return_large_blocks()
