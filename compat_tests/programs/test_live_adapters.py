"""The adapters in the programs that they are for, which are not changed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from compat_tests.programs.test_programs import installed
from compat_tests.support.models import model_directory
from compat_tests.support.programs.catalogue import LIVE, LIVE_WITH_TORCH, Mode
from compat_tests.support.programs.running import Run, Task
from compat_tests.support.recordings import load, write_wav
from compat_tests.test_live import alike, offline

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

needs_torch = pytest.mark.skipif(
    "WHISPER_MAX_TORCH_TESTS" not in os.environ, reason="needs PyTorch"
)


@pytest.fixture(scope="module")
def with_torch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed(LIVE_WITH_TORCH, tmp_path_factory.mktemp("programs"))


def printed(python: Path, mode: Mode, folder: Path) -> list[str]:
    """What a program says of the Kennedy clip."""
    audio = folder / "speech.wav"
    write_wav(audio, load("jfk"))
    task = Task(python, model_directory("base"), audio, "default")
    return Run(task, mode, folder, swapped=False).finish().printed.decode().splitlines()


def texts(lines: list[str], kind: str) -> list[str]:
    return [line.removeprefix(f"{kind}: ") for line in lines if line.startswith(f"{kind}: ")]


def test_realtimestt_engine(tmp_path: Path) -> None:
    lines = printed(installed(LIVE, tmp_path), LIVE[0].modes["engine"], tmp_path)
    assert len(set(texts(lines, "live"))) > 5, "it grows"
    (finished,), (final,) = texts(lines, "finished"), texts(lines, "final")
    assert alike(finished, offline("jfk")) > 0.85, finished
    assert alike(final, offline("jfk")) > 0.95, final


@needs_torch
def test_realtimestt_recorder(with_torch: Path, tmp_path: Path) -> None:
    lines = printed(with_torch, LIVE_WITH_TORCH[0].modes["recorder"], tmp_path)
    assert len(set(texts(lines, "live"))) >= 3, "it grows"
    (final,) = texts(lines, "final")
    assert alike(final, offline("jfk")) > 0.95, final


@needs_torch
def test_whisperlivekit(with_torch: Path, tmp_path: Path) -> None:
    lines = printed(with_torch, LIVE_WITH_TORCH[1].modes["pipeline"], tmp_path)
    for detection in ("without detection", "with detection"):
        (text,) = texts(lines, detection)
        assert alike(text, offline("jfk") * 2) > 0.8, text
