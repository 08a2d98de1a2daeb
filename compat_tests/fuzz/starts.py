"""Kills first starts at random moments: ``python -m compat_tests.fuzz.starts --kills 30``.

Three processes load a model and transcribe at once, and all of it has to be compiled. At a random
moment they and the compilers they started are killed. The next start must work, give the text that
the reference gives, and leave neither what the killed processes left nor anything of its own.

Every third start finds an empty cache folder. The others find the model's graphs, the longest part
to compile, and lack the translated kernels and the graphs that all models share, which are made in
the same way: so more kills fall into the moments when files are written. The moments are spread
evenly over what a start without a kill takes.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import faster_whisper

from compat_tests.support.models import model_directory
from compat_tests.support.recordings import audio_file
from whisper_max_backend.engine.compile.cache import VARIABLE, contents

ALL = ("*",)
SHARED = ("kernels-*", "shared-*")
TRANSCRIBE = """
import sys
from whisper_max_backend import WhisperModel
model = WhisperModel(sys.argv[1], device="cpu", compute_type="float32")
print("".join(segment.text for segment in model.transcribe(sys.argv[2], language="en")[0]))
"""
_LONGEST = 600
"""Seconds after which a start is taken to hang."""


@dataclasses.dataclass(frozen=True)
class Start:
    """A process to be started, in an environment of its own below a folder."""

    command: list[str]
    expected: str
    """What it must print."""
    folder: Path

    @property
    def cache(self) -> Path:
        """The cache folder."""
        return self.folder / "cache"

    @property
    def temporary(self) -> Path:
        """Where temporary files go."""
        return self.folder / "temporary"

    def begin(self) -> subprocess.Popen[str]:
        """Start it, as the leader of a group that its children belong to."""
        self.temporary.mkdir(exist_ok=True)
        environment = {**os.environ, VARIABLE: str(self.cache), "TMPDIR": str(self.temporary)}
        environment.pop("MODULAR_CACHE_DIR", None)
        return subprocess.Popen(
            self.command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,
        )

    def faults(self) -> list[str]:
        """What is wrong with a start that nobody kills, and with what it leaves."""
        process = self.begin()
        try:
            printed, said = process.communicate(timeout=_LONGEST)
        except subprocess.TimeoutExpired:
            _kill([process])
            return [f"it hangs for {_LONGEST} s"]
        found = []
        if process.returncode != 0:
            found.append(f"it ends with {process.returncode}: {said[-2000:]}")
        elif printed.strip() != self.expected:
            found.append(f"it prints {printed!r}")
        found += [f"{path} is left" for path in self.unfinished()]
        return found

    def unfinished(self) -> list[str]:
        """What is not a kept file, by name."""
        cached = contents(self.cache) if self.cache.is_dir() else []
        left = [entry.path for entry in cached if entry.unfinished]
        return [path.name for path in (*left, *self.temporary.iterdir())]

    def forget(self, patterns: tuple[str, ...]) -> None:
        """Remove files from the cache folder."""
        for pattern in patterns:
            for path in self.cache.glob(pattern):
                path.unlink()


def kill_and_start(start: Start, moment: float) -> dict[str, object]:
    """Start three processes, kill them after so many seconds, and start another.

    Returns:
        What is known of it; ``faults`` are those of the next start.
    """
    processes = [start.begin() for _ in range(3)]
    time.sleep(moment)  # the moment is what is tried
    running = sum(process.poll() is None for process in processes)
    _kill(processes)
    left = start.unfinished()
    began = time.monotonic()
    faults = start.faults()
    return {
        "moment": round(moment, 2),
        "killed": running,
        "left": left,
        "next_start": round(time.monotonic() - began, 1),
        "faults": faults,
    }


def _kill(processes: list[subprocess.Popen[str]]) -> None:
    """Kill processes with all their children, at once."""
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    for process in processes:
        process.communicate()


@click.command()
@click.option("--kills", default=30, show_default=True)
@click.option("--seed", type=int, help="Of the moments; printed.")
def main(kills: int, seed: int | None) -> None:
    """Kill first starts at random moments; exit status 1 if a next start is not right."""
    seed = random.SystemRandom().randrange(1 << 32) if seed is None else seed
    chance = random.Random(seed)
    model, recording = str(model_directory("tiny.en")), str(audio_file("jfk.flac"))
    reference = faster_whisper.WhisperModel(model, device="cpu", compute_type="float32")
    segments, _ = reference.transcribe(recording, language="en")
    expected = "".join(segment.text for segment in segments).strip()
    command = [sys.executable, "-c", TRANSCRIBE, model, recording]
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        start = Start(command, expected, Path(folder))
        takes: dict[tuple[str, ...], float] = {}
        for missing in (ALL, SHARED):
            start.forget(missing)
            began = time.monotonic()
            if faults := start.faults():
                raise click.ClickException(f"a start that is not killed fails: {faults}")
            takes[missing] = time.monotonic() - began
        for number in range(kills):
            missing = SHARED if number % 3 else ALL
            start.forget(missing)
            result = kill_and_start(start, chance.uniform(0, takes[missing]))
            failed += bool(result["faults"])
            row = {"kill": number, "seed": seed, "empty": missing is ALL, **result}
            click.echo(json.dumps(row))
    seconds = [round(value, 1) for value in takes.values()]
    click.echo(json.dumps({"seed": seed, "kills": kills, "failed": failed, "starts": seconds}))
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
