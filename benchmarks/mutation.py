"""``python -m benchmarks mutation``: which small faults the tests do not notice.

cosmic-ray changes one token of the package in a copy of the repository, and the tests that
``mutation.json`` names for the file run until one fails. A place is drawn, then one of the changes
that can be made there. Type annotations are left out: they do nothing when they run.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import click
from cosmic_ray.ast import ast_nodes, get_ast_from_path
from cosmic_ray.mutating import mutate_and_test, mutate_code
from cosmic_ray.plugins import get_operator, operator_names
from cosmic_ray.work_item import MutationSpec, TestOutcome

ROOT = Path(__file__).parents[1]
SETTINGS = Path(__file__).with_suffix(".json")
"""Tests of each file or folder, quick ones first, and the changes that change nothing."""
PYTEST = (sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-m", "not slow")
OUTCOMES = ("caught", "survived", "equivalent")


@dataclass(frozen=True)
class Mutant:
    """One token changed: where, and the lines that differ."""

    file: str
    spec: MutationSpec
    before: str
    after: str
    diff: str

    def __str__(self) -> str:
        return f"{self.file}: {self.before} -> {self.after or 'nothing'}"

    def is_one_of(self, known: Sequence[dict[str, str]]) -> bool:
        """Whether a list of changes has this one."""
        own = {"file": self.file, "before": self.before, "after": self.after}
        return any(own.items() <= entry.items() for entry in known)


@click.command()
@click.option("--seed", default=20, show_default=True, help="Of the choice of mutants.")
@click.option("--mutants", "count", default=200, show_default=True, help="How many to try.")
@click.option("--only", multiple=True, metavar="PATH", help="Of the files under this path only.")
@click.option("--list", "listing", is_flag=True, help="Show the mutants and run nothing.")
def main(seed: int, count: int, only: tuple[str, ...], listing: bool) -> None:
    """Change one token at a time and run the tests of the file; 1 if a change stays unnoticed.

    Works on a copy of the repository. Changes that are known to change nothing are listed in
    mutation.json with the reason, and are not tried.
    """
    settings = json.loads(SETTINGS.read_text(encoding="utf-8"))
    mutants = [
        mutant
        for mutant in chosen(settings["tests"], seed, count)
        if mutant.file.startswith(only or "")
    ]
    if listing:
        for mutant in mutants:
            print(mutant.diff)
        return
    start = time.perf_counter()
    found: dict[str, list[Mutant]] = {outcome: [] for outcome in OUTCOMES}
    with tempfile.TemporaryDirectory(prefix="whisper-max-mutation-") as scratch:
        runner = Runner(Path(scratch), settings)
        for number, mutant in enumerate(mutants, start=1):
            outcome = runner.outcome(mutant)
            found[outcome].append(mutant)
            print(f"{number} of {len(mutants)}: {outcome}, {mutant}")
            if outcome == "survived":
                print(mutant.diff, flush=True)
    minutes = (time.perf_counter() - start) / 60
    told = ", ".join(f"{len(found[outcome])} {outcome}" for outcome in OUTCOMES)
    print(f"seed {seed}, {len(mutants)} mutants: {told}; {minutes:.0f} minutes")
    sys.exit(1 if found["survived"] else 0)


class Runner:
    """A copy of the repository in which mutants are tested."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        """Copies the files as they are, committed or not."""
        self._settings = settings
        self._durations: dict[str, float] = {}
        listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
        for name in subprocess.check_output(listed, cwd=ROOT, text=True).splitlines():
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name)
        os.chdir(folder)
        os.environ["PYTHONPATH"] = str(folder)  # before the package that is installed

    def outcome(self, mutant: Mutant) -> str:
        """One of `OUTCOMES`."""
        if mutant.is_one_of(self._settings["equivalent"]):
            return "equivalent"
        tests = self._tests(mutant.file)
        # Five times what they take without a fault, and a minute.
        timeout = 60 + 5 * sum(self._duration(test) for test in tests)
        result = mutate_and_test([mutant.spec], shlex.join([*PYTEST, *tests]), timeout)
        if result.test_outcome not in (TestOutcome.KILLED, TestOutcome.SURVIVED):
            raise click.ClickException(f"this cannot be tested: {result.output}\n{mutant.diff}")
        return "caught" if result.test_outcome == TestOutcome.KILLED else "survived"

    def _tests(self, file: str) -> list[str]:
        """The tests that are named for a file, or for the folder that is nearest."""
        tests: dict[str, list[str]] = self._settings["tests"]
        return tests[max((name for name in tests if file.startswith(name)), key=len)]

    def _duration(self, test: str) -> float:
        """Seconds that a test takes without a fault. It has to pass."""
        if test not in self._durations:
            start = time.perf_counter()
            done = subprocess.run([*PYTEST, test], capture_output=True, text=True)
            if done.returncode != 0:
                raise click.ClickException(f"{test} fails without a fault:\n{done.stdout}")
            self._durations[test] = time.perf_counter() - start
        return self._durations[test]


def chosen(files: Iterable[str], seed: int, count: int) -> list[Mutant]:
    """So many mutants of files or folders.

    Places are drawn by the hash of their line: where one line changes, the others stay drawn.
    """
    sources = {source for file in files for source in _sources(ROOT / file)}
    drawn = [one for source in sources for one in _drawn(source, seed)]
    return [_mutant(spec) for _, spec in sorted(drawn, key=itemgetter(0))[:count]]


def _sources(path: Path) -> Iterator[Path]:
    yield from path.rglob("*.py") if path.is_dir() else [path]


def _drawn(path: Path, seed: int) -> Iterator[tuple[bytes, MutationSpec]]:
    """Of every place of a file that can be changed: its rank, and one of the changes."""
    file = path.relative_to(ROOT)
    lines = path.read_text(encoding="utf-8").splitlines()
    nodes = list(ast_nodes(get_ast_from_path(path)))
    places: dict[Any, list[MutationSpec]] = {}
    for name in operator_names():
        operator = get_operator(name)
        if operator.arguments():  # exchanges variables whose names would have to be given
            continue
        found = ((node, at) for node in nodes for at in operator().mutation_positions(node))
        for occurrence, (node, (start, end)) in enumerate(found):
            if not _is_annotation(node):
                spec = MutationSpec(file, name, occurrence, start, end)
                places.setdefault((start, end), []).append(spec)
    for ((first, column), (last, end)), specs in places.items():
        line = lines[first - 1]
        place = f"{seed} {file} {line} {lines[:first].count(line)} {column} {last - first} {end}"
        yield _hash(place), min(specs, key=lambda spec: _hash(f"{place} {spec.operator_name}"))


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _is_annotation(node: Any) -> bool:
    """Whether a node of a syntax tree is part of a type annotation."""
    while node.parent is not None:
        before = node.get_previous_sibling()
        if getattr(before, "value", "") == "->":
            return True
        if getattr(before, "value", "") == ":" and node.parent.type in ("annassign", "tfpdef"):
            return True
        node = node.parent
    return False


def _mutant(spec: MutationSpec) -> Mutant:
    file = spec.module_path.as_posix()
    source = (ROOT / file).read_text(encoding="utf-8")
    changed = mutate_code(source, get_operator(spec.operator_name)(), spec.occurrence)
    diff = [
        *difflib.unified_diff(source.splitlines(), changed.splitlines(), file, file, lineterm="")
    ]
    before, after = (
        " ".join(line[1:].strip() for line in diff[2:] if line.startswith(sign)) for sign in "-+"
    )
    return Mutant(file, spec, before, after, "\n".join(diff))
