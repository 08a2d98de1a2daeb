"""`python -m compat_tests.fuzz`: random and hostile input for an hour, or as long as you like.

Linux on x86-64, where atheris has wheels. Run it in the root of the repository.
"""

from __future__ import annotations

import faulthandler
import importlib
import sys
import tempfile
from pathlib import Path

import click

from compat_tests.fuzz.bundle import unpack
from compat_tests.fuzz.campaign import fuzz
from compat_tests.fuzz.watch import HANG_SECONDS

_REPRODUCE = "python -m compat_tests.fuzz reproduce"
_SHARES = {"readers": 0.6, "sounds": 0.2, "calls": 0.2}


@click.group(invoke_without_command=True)
@click.option("--minutes", default=60.0, show_default=True, help="For all targets together.")
@click.option("--seed", default=0, show_default=True)
@click.option("--repeat", is_flag=True, help="Inputs that depend on the seed alone.")
@click.option("--findings", type=click.Path(path_type=Path), help="Folder for what fails.")
@click.pass_context
def main(
    context: click.Context, minutes: float, seed: int, repeat: bool, findings: Path | None
) -> None:
    """Fuzz all targets in turn, or one.

    Prints a line of JSON for each target. The exit status is 1 if an input crashed a process, took
    over 10 s or over 1 GB, or raised what it should not.
    """
    context.obj = (seed, repeat, findings or Path(tempfile.mkdtemp(prefix="whisper-max-findings-")))
    if context.invoked_subcommand is None:
        good = [_run(context, t, 0, 60 * minutes * share) for t, share in _SHARES.items()]
        sys.exit(not all(good))


def _run(context: click.Context, target: str, runs: int, seconds: float) -> bool:
    seed, repeat, findings = context.obj
    summary = fuzz(target, runs, seconds, seed, findings, repeat)
    click.echo(summary.line())
    kept = [path for path in sorted(findings.glob(f"{target}-*")) if path.suffix != ".txt"]
    for path in kept:
        how = "the call is written in" if target == "calls" else f"{_REPRODUCE} {target}"
        click.echo(f"{how} {path}", err=True)
    return not summary.failures


def _command(target: str, purpose: str) -> None:
    @main.command(target, help=purpose)
    @click.option("--runs", default=0, help="Inputs (0: no limit).")
    @click.option("--minutes", default=0.0, help="Time (0: no limit).")
    @click.pass_context
    def command(context: click.Context, runs: int, minutes: float) -> None:
        if not runs and not minutes:
            raise click.UsageError("give --runs or --minutes")
        sys.exit(not _run(context, target, runs, 60 * minutes))


_command("readers", "Damaged and hostile model files.")
_command("sounds", "Damaged and hostile sound files.")
_command("calls", "Wild arguments for the engine.")


@main.command()
@click.argument("target", type=click.Choice(["readers", "sounds"]))
@click.argument("file", type=click.Path(exists=True, path_type=Path))
def reproduce(target: str, file: Path) -> None:
    """Check one input that was kept, without a fuzzer around it."""
    faulthandler.enable()
    faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
    module = importlib.import_module(f"compat_tests.fuzz.{target}")
    module.prepare()
    click.echo(module.check(unpack(file.read_bytes())))


if __name__ == "__main__":
    main()
