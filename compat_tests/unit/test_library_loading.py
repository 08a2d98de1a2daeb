"""MAX's library is mapped beside the first imports, and no process is harmed by it."""

import subprocess
import sys

import pytest

MAPPED = """
import os, sys
from whisper_max_backend import WhisperModel

child = os.fork()  # which waits for the library
if child == 0:
    os._exit(0)
os.waitpid(child, 0)
with open("/proc/self/maps") as maps:
    print(any(f"{os.sep}max{os.sep}_core" in line for line in maps), "max" in sys.modules)
"""
FORKED = """
import os
import whisper_max_backend as package
package.WhisperModel
child = os.fork()
if child == 0:
    import max.driver
    os._exit(0 if max.driver.CPU().label == "cpu" else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
OLD_PROCESSOR = """
from whisper_max_backend.system import cpu_features
cpu_features.processor_features = lambda: frozenset({"fma"})
cpu_features._architecture = lambda: "x86_64"
"""
on_linux = pytest.mark.skipif(
    sys.platform != "linux", reason="elsewhere nothing is mapped beforehand, and no /proc tells it"
)


def printed(program: str) -> str:
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@on_linux
def test_the_library_is_mapped_before_max_is_imported() -> None:
    assert printed(MAPPED) == "True False"


def test_a_fork_at_that_moment_has_the_whole_library() -> None:
    assert printed(FORKED) == "0"


@on_linux
def test_a_processor_that_cannot_run_it_does_not_map_it() -> None:
    assert printed(OLD_PROCESSOR + MAPPED) == "False False"
