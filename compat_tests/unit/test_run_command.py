"""What the command `run` starts; it is replaced."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from compat_tests.support.command_line import invoke
from whisper_max_backend.cli.run import SITE, VARIABLE


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], dict[str, str]]]:
    """The command lines and environments of what `run` has started."""
    found: list[tuple[list[str], dict[str, str]]] = []

    def execve(path: str, command: list[str], environment: dict[str, str]) -> None:
        assert path == command[0]
        found.append((command, environment))

    monkeypatch.setattr(os, "execve", execve)
    monkeypatch.delenv("WHISPER_MAX_SWAP_LOG", raising=False)
    return found


def test_a_program_is_started_with_its_own_options(
    started: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "inherited")
    script, other = tmp_path / "x.py", tmp_path / "x.sh"
    for path in (script, other):
        path.touch(0o755)
    options = ("--device", "cpu", "--compute-type", "int8", "--threads", "2")
    for program, expected in (
        (["-m", "mod"], [sys.executable, "-m", "mod"]),
        ([str(script)], [sys.executable, str(script)]),
        ([str(other)], [str(other)]),
        (["python"], [str(Path(sys.executable).parent / "python")]),
    ):
        done = invoke("run", *options, *program, "--device", "x", "--unknown", "-m", "y", "--help")
        assert done.exit_code == 0, done.output
        command, environment = started.pop()
        assert command == [*expected, "--device", "x", "--unknown", "-m", "y", "--help"]
        assert environment["PYTHONPATH"] == f"{SITE}{os.pathsep}inherited"
        told = {"device": "cpu", "compute_type": "int8", "intra_threads": 2}
        assert json.loads(environment[VARIABLE]) == told
        assert "WHISPER_MAX_SWAP_LOG" not in environment
    assert (SITE / "sitecustomize.py").is_file()


def test_a_program_without_options(started: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    invoke("--verbose", "run", "-m", "mod")
    command, environment = started.pop()
    assert command == [sys.executable, "-m", "mod"]
    assert environment["PYTHONPATH"] == str(SITE)
    assert json.loads(environment[VARIABLE]) == {}
    assert environment["WHISPER_MAX_SWAP_LOG"] == "DEBUG"


@pytest.mark.parametrize("program", ["absent.py", "--absent"])
def test_what_is_no_program(started: list[Any], program: str) -> None:
    done = invoke("run", program, "python")
    assert (done.exit_code, started) == (127, [])
    assert f"there is no program '{program}'" in done.stderr
