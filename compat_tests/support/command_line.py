"""The command line, in this process."""

from __future__ import annotations

from click.testing import CliRunner, Result

from whisper_max_backend.cli import main


def invoke(*arguments: str) -> Result:
    """What a command has printed, and its exit code."""
    return CliRunner().invoke(main, list(arguments))
