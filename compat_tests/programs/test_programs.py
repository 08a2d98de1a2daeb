"""Every program gives the same on this engine as without it, byte for byte in float32.

They are installed in an environment of their own, which needs PyPI. Those that need PyTorch are
tested if WHISPER_MAX_TORCH_TESTS is set.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from compat_tests.support.models import model_directory
from compat_tests.support.programs.catalogue import PROGRAMS, WITH_TORCH, Mode, Program
from compat_tests.support.programs.environment import InstallError, make_environment
from compat_tests.support.programs.running import Outcome, Run, Task
from compat_tests.support.recordings import load, write_wav

REQUIRED = os.environ.get("WHISPER_MAX_PROGRAM_TESTS") == "required"
PAGE = Path(__file__).parents[2] / "docs" / "programs.md"

SCORE = re.compile(rb"-?\d+\.\d{6,}(?:e-\d+)?|-?\d+(?:\.\d+)?e-\d+")
ROUNDING = 1e-4
"""Some programs write probabilities and their logarithms with all decimals. The reference's are up
to 6e-5 from those of float64 (compat_tests/test_scores.py)."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def modes_of(programs: Sequence[Program]) -> list:
    return [
        pytest.param(program, mode, id=f"{program.name}-{name}")
        for program in programs
        for name, mode in program.modes.items()
    ]


def installed(programs: Sequence[Program], folder: Path) -> Path:
    """The Python of a new environment with the programs."""
    try:
        return make_environment(folder / "environment", programs)
    except InstallError as error:
        if REQUIRED:
            raise
        pytest.skip(f"the programs cannot be installed: {error}")


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed(PROGRAMS, tmp_path_factory.mktemp("programs"))


def outcome(task: Task, mode: Mode, folder: Path, *, swapped: bool) -> Outcome:
    """What the program gives, having run on the engine it should."""
    run = Run(task, mode, folder, swapped=swapped)
    if mode.client is None:
        result = run.finish()
    else:
        with run.serve():
            result = run.ask()
    run.check_engine()
    return result


def apart(content: bytes) -> tuple[bytes, list[float]]:
    """All but the scores, and the scores."""
    return SCORE.sub(b"#", content), [float(score) for score in SCORE.findall(content)]


def assert_same(ours: bytes, stock: bytes) -> None:
    """Byte for byte, with scores that are equal but for rounding."""
    (our_bytes, our_scores), (stock_bytes, stock_scores) = apart(ours), apart(stock)
    assert our_bytes == stock_bytes
    np.testing.assert_allclose(our_scores, stock_scores, rtol=0, atol=ROUNDING)


def test_the_page_lists_what_is_tested() -> None:
    rows = re.findall(r"^\| (\S+) \| ([\d.]+) \| ([^|]+) \|", PAGE.read_text(), re.MULTILINE)
    tested = [(one.name, one.version, name) for one in PROGRAMS for name in one.modes]
    assert rows == tested


def check(python: Path, program: Program, mode: Mode, folder: Path) -> None:
    """The program heard the speech, and the same on both engines."""
    audio = folder / "speech.wav"
    write_wav(audio, load("jfk"))
    model = model_directory("base" if program.multilingual else "tiny.en")
    task = Task(python, model, audio, "float32")
    stock = outcome(task, mode, folder / "stock", swapped=False)
    swapped = outcome(task, mode, folder / "swapped", swapped=True)
    assert_same(swapped.printed, stock.printed)
    assert swapped.files.keys() == stock.files.keys()
    for name, content in stock.files.items():
        assert_same(swapped.files[name], content)
    assert b"ask not what your country" in b"".join([stock.printed, *stock.files.values()])


@pytest.mark.parametrize(("program", "mode"), modes_of(PROGRAMS))
def test_output_is_the_same(python: Path, program: Program, mode: Mode, tmp_path: Path) -> None:
    check(python, program, mode, tmp_path)


@pytest.mark.skipif("WHISPER_MAX_TORCH_TESTS" not in os.environ, reason="needs PyTorch")
@pytest.mark.parametrize(("program", "mode"), modes_of(WITH_TORCH))
def test_output_is_the_same_with_pytorch(program: Program, mode: Mode, tmp_path: Path) -> None:
    check(installed([program], tmp_path), program, mode, tmp_path)
