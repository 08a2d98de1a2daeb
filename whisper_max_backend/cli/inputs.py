"""What the arguments of `transcribe` name: files, folders, patterns, and the sample."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..assets import SAMPLE
from ..suffixes import SUFFIXES


@dataclass(frozen=True)
class Input:
    """One argument after expansion: the file, or why there is none."""

    name: str
    path: Path | None
    problem: str = ""


def expand(arguments: Iterable[str]) -> Iterator[Input]:
    """The files that the arguments name, each once, in their order.

    A name of an existing file is that file, even if it could be a pattern. ``sample`` is the
    recording in this package, unless a file or folder has the name.
    """
    seen: set[Path] = set()
    for argument in arguments:
        for found in _expand_one(argument):
            if found.path is None:
                yield found
            elif (resolved := found.path.resolve()) not in seen:
                seen.add(resolved)
                yield found


def _expand_one(argument: str) -> Iterator[Input]:
    path = Path(argument)
    if path.is_dir():
        yield from _folder(path)
    elif path.exists():
        yield Input(argument, path)
    elif argument == "sample":
        yield Input(argument, SAMPLE)
    elif glob.has_magic(argument):
        matches = sorted(Path(match) for match in glob.iglob(argument, recursive=True))
        if not matches:
            yield Input(argument, None, "no file matches this pattern")
        for match in matches:
            if not match.is_dir():
                yield Input(str(match), match)
    else:
        yield Input(argument, None, "there is no such file")


def _folder(path: Path) -> Iterator[Input]:
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
    if not files:
        yield Input(
            str(path), None, "the folder holds no sound or film (folders in it are not searched)"
        )
    for file in files:
        yield Input(str(file), file)


def output_names(inputs: Sequence[Input]) -> list[str]:
    """The name, without suffix, of each input's transcripts: distinct, and short where possible.

    ``a.wav`` gives ``a``; with an ``a.mp3`` beside it, ``a.wav`` and ``a.mp3``; files of one name
    from several folders are numbered.
    """
    paths = [Path(found.name) for found in inputs]
    stems = [path.stem for path in paths]
    names: list[str] = []
    for path in paths:
        base = path.stem if stems.count(path.stem) == 1 else path.name
        name, number = base, 2
        while name in names:
            name, number = f"{base}-{number}", number + 1
        names.append(name)
    return names
