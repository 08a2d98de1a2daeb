"""Runs a program, stock or swapped in, and takes what it gives."""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from compat_tests.support.programs.catalogue import Mode

SCRIPTS = Path(__file__).parent / "scripts"
TIMEOUT = 300
"""Seconds for a program, or for a server to start."""

LOGGED = {"max": " runs on this engine ", "ctranslate2": "Loaded model "}
"""What `whisper-max --verbose run` and CTranslate2 log of every model of theirs."""


class ProgramError(RuntimeError):
    """A program failed; the message has what it wrote to stderr."""


@dataclass(frozen=True)
class Task:
    """What a program has to do; `python` is that of the environment it is installed in."""

    python: Path
    model: Path
    audio: Path
    compute_type: str


@dataclass(frozen=True)
class Outcome:
    """What a program gave.

    Attributes:
        printed: To stdout; the working directory is called `.` there.
        files: What it left in the working directory, by names.
        seconds: From its start to its end; of a server, from the question to the answer.
    """

    printed: bytes
    files: dict[str, bytes]
    seconds: float


class Run:
    """A program at work in a new folder of its own."""

    def __init__(self, task: Task, mode: Mode, folder: Path, *, swapped: bool) -> None:
        self._task = task
        self._mode = mode
        self._swapped = swapped
        self._work = folder / "work"
        self._log = folder / "log"
        self._port = str(_free_port())
        self._work.mkdir(parents=True)
        if mode.config is not None:
            (self._work / "config.yaml").write_text(self._fill(mode.config))
        self._environment = {
            **os.environ,
            "PATH": os.pathsep.join([str(task.python.parent), os.environ.get("PATH", "")]),
            **{f"XDG_{kind}_HOME": str(folder / kind) for kind in ("CONFIG", "DATA", "STATE")},
            "HF_HUB_OFFLINE": "1",
            "CT2_VERBOSE": "1",
        }

    @property
    def log(self) -> str:
        """What the program has written to stderr so far."""
        return self._log.read_text(errors="replace")

    def check_engine(self) -> None:
        """That the program's models, and it has had one, all ran on the engine they should.

        Raises:
            ProgramError: They did not.
        """
        log = self.log
        expected = "max" if self._swapped else "ctranslate2"
        if [engine for engine, words in LOGGED.items() if words in log] != [expected]:
            raise ProgramError(f"{self._mode.command} did not run on {expected} alone\n{log}")

    def finish(self) -> Outcome:
        """Runs a program that ends by itself.

        Raises:
            ProgramError: Its exit status is not 0.
        """
        start = time.perf_counter()
        with self._log.open("wb") as stderr:
            result = subprocess.run(
                self._command(),
                cwd=self._work,
                env=self._environment,
                stdout=subprocess.PIPE,
                stderr=stderr,
                timeout=TIMEOUT,
                check=False,
            )
        seconds = time.perf_counter() - start
        if result.returncode:
            raise ProgramError(f"{self._mode.command}: {result.returncode}\n{self.log}")
        files = {
            str(file.relative_to(self._work)): file.read_bytes()
            for file in sorted(self._work.rglob("*"))
            if file.is_file()
        }
        printed = result.stdout.replace(str(self._work).encode(), b".")
        return Outcome(printed, files, seconds)

    @contextmanager
    def serve(self) -> Iterator[None]:
        """In this block the program, a server, answers `ask`.

        Raises:
            ProgramError: It ended before it could be reached.
        """
        with self._log.open("wb") as log:
            process = subprocess.Popen(
                self._command(),
                cwd=self._work,
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            self._wait(process)
            yield
        finally:
            process.terminate()
            process.wait(30)

    def ask(self) -> Outcome:
        """The server's answer to its client.

        Raises:
            ProgramError: There is none.
        """
        assert self._mode.client is not None, "only servers have clients"
        result = subprocess.run(
            [self._task.python, *map(self._fill, shlex.split(self._mode.client))],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        took = re.search(r"^seconds: (\S+)$", result.stderr, re.MULTILINE)
        if result.returncode or took is None:
            raise ProgramError(f"{self._mode.client}:\n{result.stderr}\nThe server:\n{self.log}")
        return Outcome(result.stdout.encode(), {}, float(took[1]))

    def _command(self) -> list[str]:
        """As a user would write it."""
        python = str(self._task.python)
        words = [self._fill(word) for word in shlex.split(self._mode.command)]
        if self._swapped:  # `whisper-max` itself is in the environment of the tests
            return [python, "-m", "whisper_max_backend", "--verbose", "run", *words]
        if words[0] == "-m" or words[0].endswith(".py"):
            return [python, *words]
        return [str(self._task.python.parent / words[0]), *words[1:]]

    def _fill(self, text: str) -> str:
        return text.format(
            model=self._task.model,
            audio=self._task.audio,
            compute_type=self._task.compute_type,
            scripts=SCRIPTS,
            port=self._port,
        )

    def _wait(self, process: subprocess.Popen) -> None:
        end = time.monotonic() + TIMEOUT
        while process.poll() is None and time.monotonic() < end:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", int(self._port))) == 0:
                    return
            time.sleep(0.05)
        raise ProgramError(f"{self._mode.command} cannot be reached\n{self.log}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
