"""An environment with the programs in it, above the one that runs."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterable
from pathlib import Path

from compat_tests.support.programs.catalogue import Program


class InstallError(RuntimeError):
    """The programs could not be installed; the message is the end of pip's."""


def make_environment(folder: Path, programs: Iterable[Program]) -> Path:
    """Installs the programs in a new environment, which has the packages of this one as well.

    What a program needs in another version than is installed here is installed there.

    Returns:
        The environment's Python.

    Raises:
        InstallError: pip could not install them.
    """
    programs = list(programs)
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    whole = [one for program in programs if not program.alone for one in _requirements(program)]
    alone = [one for program in programs if program.alone for one in _requirements(program)]
    if whole:
        _install(python, whole)
    if alone:
        _install(python, ["--no-deps", *alone])
    _add_packages_of_this_environment(python)
    return python


def _requirements(program: Program) -> tuple[str, ...]:
    return (program.requirement, *program.also)


def _packages() -> str:
    """Where this environment's packages are."""
    return sysconfig.get_path("purelib")


def _install(python: Path, arguments: list[str]) -> None:
    # By the variable pip sees this environment's packages, and those that it builds with do not.
    result = subprocess.run(
        [python, "-m", "pip", "install", "--quiet", *arguments],
        env={**os.environ, "PYTHONPATH": _packages()},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if result.returncode:
        raise InstallError(f"pip install {' '.join(arguments)}:\n{result.stdout[-2000:]}")


def _add_packages_of_this_environment(python: Path) -> None:
    """Also those that are installed as links (``pip install -e``), behind the new ones."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    own = python.parent.parent / "lib" / version / "site-packages"
    (own / "packages_of_the_tests.pth").write_text(
        f"import site; site.addsitedir({_packages()!r})\n"
    )
