"""The one door: every command is there, says what it does, and is written as the pages show it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from click.testing import CliRunner

from benchmarks.__main__ import COMMANDS, main
from benchmarks.record import ROOT

PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")]


def shown(command: str) -> Iterator[str]:
    """What the pages have behind the name of a command."""
    for page in PAGES:
        lines = re.findall(rf"python -m benchmarks {command}\b([^#`\n]*)", page.read_text())
        yield from lines


def test_help_tells_every_command_in_a_sentence() -> None:
    result = CliRunner().invoke(main, ["--help"], terminal_width=200)
    for name, (_, sentence) in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(sentence)}$", result.output, re.M), result.output


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_have_the_options_that_pages_show(command: str) -> None:
    if command == "mutation":
        pytest.importorskip("cosmic_ray", reason="comes with the extra `mutation`")
    result = CliRunner().invoke(main, [command, "--help"])
    assert result.exit_code == 0, result.output
    pytest_s = {"-k"} if command == "cpu" else set()
    for line in shown(command):
        for option in set(re.findall(r"(?<!\S)--?[a-z][\w-]*", line)) - pytest_s:
            assert re.search(rf"(?<!\S){option}\b", result.output), f"{command} has no {option}"


def test_pages_show_commands_that_there_are() -> None:
    texts = "\n".join(page.read_text() for page in PAGES)
    assert set(re.findall(r"python -m benchmarks ([a-z]\w*)", texts)) <= set(COMMANDS)
