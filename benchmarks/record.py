"""The one format of results: what every record says of its run, and where it is kept.

A record is a JSON file. It begins with the keys of `Record`, the same for all benchmarks; then
come the keys of its benchmark, which the benchmark's own module describes.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from benchmarks.machine import describe_machine, slug

ROOT = Path(__file__).parents[1]
"""The repository, where processes of these benchmarks are started."""
KEPT = Path(__file__).parent / "results"
"""The records in the repository: the newest of each machine and benchmark."""
SCRATCH = ROOT / ".benchmarks"
"""Where a record goes unless it is to be kept; git ignores it."""

_PACKAGES = ("whisper-max-backend", "max", "faster-whisper", "ctranslate2", "numpy")
_PEERS = ("torch", "transformers", "openvino-genai", "pywhispercpp", "openai-whisper")
_VARIABLES = (
    *("WHISPER_MAX_CPU_TARGET", "WHISPER_MAX_REPLAY", "OMP_NUM_THREADS"),
    *("CT2_FORCE_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS", "ONEDNN_MAX_CPU_ISA"),
)
"""Of the environment: what a result depends on."""

_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclass
class Record:
    """What is known of one run.

    Attributes:
        benchmark: The command of `python -m benchmarks`.
        variant: What else is part of the file's name: a model, or two commits.
        command: The command line, with the variables that were set; None if it was not noted.
        date: When it began, UTC.
        commit: Of this repository; None where there was none to ask, or it was not noted.
        uncommitted_changes: Whether the files differed from that commit's; None if not known.
        machine: As `describe_machine` tells; None where it was not noted.
        versions: Of Python and of packages, those that are installed.
        load_average: Of the machine in the minute ``before`` and ``after``.
        found: What the benchmark has found, by keys of its own.
    """

    benchmark: str
    variant: str
    command: str | None
    date: str
    commit: str | None
    uncommitted_changes: bool | None
    machine: dict[str, Any]
    versions: dict[str, str]
    load_average: dict[str, Any]
    found: dict[str, Any] = field(default_factory=dict)

    @property
    def file_name(self) -> str:
        """The same for every run of a benchmark on a machine."""
        parts = (self.benchmark, self.variant, self.machine["name"])
        return f"{slug(' '.join(parts))}.json"

    def keep(self, folder: Path) -> Path:
        """Writes what there is so far, for a run may be cut short; returns the file."""
        self.load_average["after"] = os.getloadavg()[0]
        return self.write(folder)

    def write(self, folder: Path) -> Path:
        """Writes the record in place of an earlier one of its name; returns the file."""
        content = dataclasses.asdict(self)
        path = folder / self.file_name
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content | content.pop("found"), indent=1) + "\n")
        return path

    def finish(self, folder: Path) -> NoReturn:
        """Keeps the record, tells where, and which promises are ``broken``; with 1 if any is."""
        print(f"kept in {self.keep(folder)}")
        broken = self.found.get("broken", [])
        for promise in broken:
            print(f"does not hold: {promise}")
        sys.exit(1 if broken else 0)


_HEADER = {each.name for each in dataclasses.fields(Record)} - {"found"}


def begin(benchmark: str, variant: str = "", **found: Any) -> Record:
    """The record of a run that begins now."""
    commit = _git("rev-parse", "HEAD")
    changes = _git("status", "--porcelain", "--", ".", f":!{KEPT.relative_to(ROOT)}")
    return Record(
        benchmark=benchmark,
        variant=variant,
        command=_command_line(),
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        commit=commit,
        uncommitted_changes=None if changes is None else bool(changes),
        machine=describe_machine(),
        versions={"python": platform.python_version(), **_versions()},
        load_average={"before": os.getloadavg()[0]},
        found=found,
    )


def read(path: Path) -> Record:
    """A record from its file.

    Raises:
        ValueError: The file is none.
    """
    content = json.loads(path.read_text())
    if not isinstance(content, dict) or not content.keys() >= _HEADER:
        raise ValueError(f"{path} is no record of `python -m benchmarks`")
    header = {name: content.pop(name) for name in _HEADER}
    return Record(**header, found=content)


def version_of(package: str) -> str | None:
    """Of a package; None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def results_option(command: _Command) -> _Command:
    """The option `--results`, as every benchmark has it."""
    option = click.option(
        "--results",
        type=click.Path(file_okay=False, path_type=Path),
        default=SCRATCH,
        help="Folder of the record, which replaces an earlier one of its name "
        "[default: .benchmarks; benchmarks/results keeps it in the repository].",
    )
    return option(command)


def _versions() -> dict[str, str]:
    found = {package: version_of(package) for package in (*_PACKAGES, *_PEERS)}
    return {package: one for package, one in found.items() if one is not None}


def _command_line() -> str:
    variables = [f"{name}={os.environ[name]}" for name in _VARIABLES if name in os.environ]
    return shlex.join([*variables, "python", "-m", "benchmarks", *sys.argv[1:]])


def _git(*arguments: str) -> str | None:
    """What git says of the repository; None where there is no git, or no repository."""
    try:
        result = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout.strip()
