"""The command `run`: another program, with its models on this engine."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import click

SITE = Path(__file__).parents[1] / "swap" / "site"
VARIABLE = "WHISPER_MAX_SWAP"
"""Its value is read there."""


class NoProgram(click.ClickException):
    """There is nothing to start."""

    exit_code = 127  # a shell's


@click.command(
    "run", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}
)
@click.option("-m", "as_module", is_flag=True, help="PROGRAM is a module, as for python -m.")
@click.option("--device", help="For models whose program names none.")
@click.option("--compute-type", help="For models whose program names none.")
@click.option("--threads", "intra_threads", type=click.IntRange(min=1), help="Likewise.")
@click.argument("program")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def run(program: str, arguments: tuple[str, ...], as_module: bool, **defaults: Any) -> None:
    """Start PROGRAM, a command, script or module, with faster-whisper's models on this engine.

    The processes that it starts are swapped too. What comes after PROGRAM is the program's.
    `whisper-max --verbose run` tells on stderr which models run on this engine.
    """
    command = _command(program, as_module)
    chosen = {name: value for name, value in defaults.items() if value is not None}
    inherited = os.environ.get("PYTHONPATH")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(SITE), *([inherited] if inherited else [])]),
        VARIABLE: json.dumps(chosen),
    }
    context = click.get_current_context().parent
    if context is not None and context.params["verbose"]:
        environment["WHISPER_MAX_SWAP_LOG"] = "DEBUG"
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(command[0], [*command, *arguments], environment)


def _command(program: str, as_module: bool) -> list[str]:
    """What to execute: this Python for scripts and modules, else a command on the path."""
    if as_module:
        return [sys.executable, "-m", program]
    if program.endswith(".py") and os.path.isfile(program):
        return [sys.executable, program]
    beside = os.path.dirname(sys.executable)  # also when the environment is not activated
    found = shutil.which(program, path=os.pathsep.join([beside, os.environ.get("PATH", "")]))
    if found is None:
        raise NoProgram(
            f"there is no program {program!r}: name a command, a script (.py), or a module after -m"
        )
    return [found]
