"""A commit that is checked out beside this one, and processes that run its package."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from benchmarks.new_process import SCRIPTS, first_text
from benchmarks.record import ROOT


@dataclass(frozen=True)
class Commit:
    """A commit with its files in `tree` and a cache of its own."""

    commit: str
    tree: Path
    cache: Path

    @property
    def short(self) -> str:
        """The beginning of its name."""
        return self.commit[:8]

    @property
    def variables(self) -> dict[str, str]:
        """Of the environment of its processes."""
        return {
            "PYTHONPATH": str(self.tree),
            "WHISPER_MAX_CACHE": str(self.cache),
            "WHISPER_MAX_PLUGINS": "",
            "MODULAR_TELEMETRY_ENABLED": "0",
        }

    def empty_cache(self) -> None:
        """Its next process compiles everything."""
        shutil.rmtree(self.cache, ignore_errors=True)

    def first_text(self, model: Path, audio: Path) -> float:
        """Seconds from the start of a process to the first text, in int8."""
        arguments = ("whisper_max_backend", str(model), str(audio), "0", "int8")
        return first_text(*arguments, variables=self.variables)[1]

    @contextlib.contextmanager
    def loaded(self, model: Path, compute_type: str) -> Iterator[LoadedModel]:
        """A process that has loaded a model."""
        script = SCRIPTS / "transcribe_on_request.py"
        with subprocess.Popen(
            [sys.executable, str(script), str(model), compute_type],
            env={**os.environ, **self.variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                assert process.stdin is not None
                assert process.stdout is not None
                found = LoadedModel(process.stdin, process.stdout)
                if not found.package.is_relative_to(self.tree):
                    raise RuntimeError(f"{found.package} is not the package of {self.short}")
                yield found
            finally:
                process.kill()

    def warm_up(self, models: Iterable[Path], files: Iterable[Path]) -> None:
        """Whatever is compiled or made on first use, Python's modules among it."""
        for model in models:
            with self.loaded(model, "int8") as loaded:
                for file in files:
                    loaded.transcribe(file)


class LoadedModel:
    """A model in a process of its own, asked through its standard input and output."""

    def __init__(self, stdin: IO[str], stdout: IO[str]) -> None:
        self._stdin = stdin
        self._stdout = stdout
        self.package = Path(str(self._answer()))
        """The file of the package that the process has imported."""

    def transcribe(self, file: Path) -> float:
        """Seconds of a transcription; the file is decoded before."""
        print(file, file=self._stdin, flush=True)
        answer = self._answer()
        assert isinstance(answer, list)
        seconds, text = answer
        if not text:
            raise RuntimeError(f"no text from {file}")
        return float(seconds)

    def _answer(self) -> object:
        line = self._stdout.readline()
        if not line:
            raise RuntimeError("the process has ended; what it said is on standard error")
        answer: object = json.loads(line)
        return answer


@contextlib.contextmanager
def checked_out(name: str, folder: Path) -> Iterator[Commit]:
    """A commit by any of its names, in a worktree that goes again.

    Raises:
        RuntimeError: There is no such commit.
    """
    commit = _git("rev-parse", "--verify", f"{name}^{{commit}}")
    tree, cache = folder / "tree", folder / "cache"
    _git("worktree", "add", "--detach", str(tree), commit)
    try:
        yield Commit(commit, tree, cache)
    finally:
        _git("worktree", "remove", "--force", str(tree))


def _git(*arguments: str) -> str:
    result = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    if result.returncode != 0:
        raise RuntimeError(f"git {' '.join(arguments)}: {result.stderr.strip()}")
    return result.stdout.strip()
