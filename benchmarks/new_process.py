"""A new process: what it prints, seconds to its first text, and the most memory that it takes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks.record import ROOT

SCRIPTS = Path(__file__).parent / "scripts"
# Else modules of an editable installation would be translated anew at every start.
_TRANSLATED_ANEW = "PYTHONDONTWRITEBYTECODE"


def output_of(module: str, *arguments: str, variables: Mapping[str, str] | None = None) -> str:
    """What a module prints that is run as a program.

    Args:
        module: Its name.
        arguments: On its command line.
        variables: Of the environment, besides those that there are.

    Raises:
        RuntimeError: It fails; the message is the end of its standard error.
    """
    result = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, **(variables or {})},
    )
    if result.returncode != 0:
        raise RuntimeError(result.stderr.strip()[-2000:])
    return result.stdout


def first_text(
    *arguments: str, python: str | None = None, variables: Mapping[str, str] | None = None
) -> tuple[str, float]:
    """The text that the script prints, and seconds from the start of its process.

    How long the process takes to end is not measured.

    Args:
        arguments: Of `first_text.py`.
        python: Another interpreter, which sees nothing but what is installed with it.
        variables: Of the environment, besides those that there are.

    Raises:
        RuntimeError: It prints none; why is on standard error.
    """
    environment = {**os.environ, **(variables or {})}
    environment.pop(_TRANSLATED_ANEW, None)
    interpreter = [python, "-E"] if python else [sys.executable]
    command = [*interpreter, str(SCRIPTS / "first_text.py"), *arguments]
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        text = process.stdout.readline()
        seconds = time.perf_counter() - started
        process.kill()
    if not text:
        raise RuntimeError(f"no text from {' '.join(arguments)}")
    return text, seconds


def peak_bytes(*arguments: str) -> int:
    """The most memory that a process of `scripts/peak_memory.py` has resident."""
    command = [sys.executable, "-m", "benchmarks.scripts.peak_memory", *arguments]
    return int(subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout)
