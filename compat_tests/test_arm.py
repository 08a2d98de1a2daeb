"""The kernels of ARM processors: compiled for them here, and run by QEMU.

Each level of ARM has kernels of its own; QEMU runs them on a processor that has no more than the
level. The tests of the kernels are those of this machine's. Debian's packages are `qemu-user` and
`gcc-aarch64-linux-gnu`; MAX's runtime for ARM comes from PyPI.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

from compat_tests.support.commands import find_command
from compat_tests.support.emulated.program import (
    COMPILER,
    EMULATOR,
    NoRuntime,
    download_runtime,
)
from compat_tests.support.emulated.session import emulated
from compat_tests.support.models import ENGLISH, model_directory, reference_transcription
from compat_tests.support.recordings import load
from whisper_max_backend import WhisperModel

REQUIRED = os.environ.get("WHISPER_MAX_EMULATOR_TESTS") == "required"
ROOT = Path(__file__).parents[1]
KERNEL_TESTS = [
    "compat_tests/unit/test_kernels.py",
    "compat_tests/unit/test_decoding_kernels.py",
    "compat_tests/unit/test_network.py",
    "compat_tests/test_log_mel.py::test_float64",
]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        platform.machine() != "x86_64" or sys.platform != "linux",
        reason="the cross compiler and QEMU's user emulation are those of x86-64 Linux",
    ),
]


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    find_command(EMULATOR, package="qemu-user", required=REQUIRED)
    find_command(COMPILER, package=COMPILER.removesuffix("-gcc"), required=REQUIRED)
    try:
        return download_runtime(tmp_path_factory.mktemp("runtime"))
    except NoRuntime as error:
        if REQUIRED:
            raise
        pytest.skip(str(error))


def test_every_kernel(runtime: Path) -> None:
    """Against float64, as on this machine; each kernel runs, and the run tells which ones did.

    Matrices of float16 are the decoder's alone: the encoder's kernels are those of float32.
    """
    ran = run_kernels("apple-m2", runtime, "-k", "not (float16 and (encode or frame))")
    assert "ran whisper.encoder[storage=int8]" in ran
    assert "did not run" not in ran


def test_kernels_without_matrix_instructions(runtime: Path) -> None:
    """A processor without i8mm has other code for int8, and for nothing else."""
    ran = run_kernels("cortex-a76", runtime, "-k", "int8")
    for kernel in ("encoder", "cross_kv", "decoder", "step"):
        assert re.search(rf"ran whisper\.{kernel}\[.*storage=int8", ran), kernel


def run_kernels(target: str, runtime: Path, *options: str) -> str:
    """What the tests of the kernels say, run as on a `target`; they have passed."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not slow", "-p", "no:cacheprovider"]
    command += ["-p", "compat_tests.support.emulated.plugin", "--arm", target]
    command += ["--arm-runtime", str(runtime), *KERNEL_TESTS, *options]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    print(result.stdout)
    assert result.returncode == 0, result.stdout[-5000:]
    return result.stdout


def test_a_transcription(runtime: Path, tmp_path: Path) -> None:
    """Its kernels are all ARM's; what is around them is this machine's."""
    speech = load("command")
    with emulated("apple-m2", runtime, tmp_path):
        model = WhisperModel(str(model_directory("tiny.en")), compute_type="float32")
        segments, _ = model.transcribe(speech, beam_size=1, **ENGLISH)
        tokens = [token for segment in segments for token in segment.tokens]
    expected = reference_transcription("tiny.en", "command", beam_size=1, **ENGLISH)
    assert tokens == [token for segment in expected.segments for token in segment.tokens]
