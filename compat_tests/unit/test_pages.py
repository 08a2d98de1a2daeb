"""README, pages, hooks, workflows and issue forms agree with the project and with each other."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from whisper_max_backend.cli import main

ROOT = Path(__file__).parents[2]
CI = (ROOT / ".ci" / "run").read_text().splitlines()
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")])
FORMS = sorted(ROOT.glob(".github/ISSUE_TEMPLATE/*.yml"))
FOLDERS = {path.name for path in ROOT.iterdir() if path.is_dir()} | {"engine"}
"""Names of files in these are checked; `engine` is a folder of the package."""

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def test_continuous_integration_runs_the_readmes_command() -> None:
    commands = re.findall(r"^```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.M | re.S)
    (tests,) = [command.strip() for command in commands if "[test]" in command]
    assert tests in CI


def test_hooks_and_continuous_integration_check_the_same() -> None:
    hooks = re.findall(r"^ +entry: (.+)$", (ROOT / ".pre-commit-config.yaml").read_text(), re.M)
    checks = CI[CI.index("# The hooks of .pre-commit-config.yaml run the same.") + 1 :]
    assert [line for line in checks if not line.startswith("pip install ")] == hooks


def test_workflows_run_scripts_that_are_there() -> None:
    workflows = "\n".join(path.read_text() for path in ROOT.glob(".github/workflows/*.yml"))
    scripts = {ROOT / name for name in re.findall(r"run: bash (\S+)", workflows)}
    assert scripts == set(ROOT.glob(".ci/*"))
    assert all(os.access(script, os.X_OK) for script in scripts)


def test_issue_forms_ask_for_the_backends() -> None:
    assert [form for form in FORMS if "whisper-max backends --json" not in form.read_text()] == [
        ROOT / ".github" / "ISSUE_TEMPLATE" / "config.yml"
    ]


def named_files(text: str) -> Iterator[str]:
    """What a page names in backquotes and has a folder of the project before it."""
    for name in re.findall(r"`([\w.-]+/[\w./-]*)`", text):
        if name.split("/")[0] in FOLDERS:
            yield name


@each_page
def test_pages_name_files_that_are_there(page: Path) -> None:
    homes = (ROOT, ROOT / "whisper_max_backend")
    for name in named_files(page.read_text()):
        assert any((home / name).exists() for home in homes), f"there is no {name}"


@each_page
def test_links_to_files_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), f"there is no {target}"


@each_page
def test_pages_show_commands_that_there_are(page: Path) -> None:
    shown = set(re.findall(r"^whisper-max (?:--\w+ )?(\w+)", page.read_text(), re.M))
    assert shown <= set(main.commands), f"{shown - set(main.commands)}"


@each_page
def test_pages_show_options_that_there_are(page: Path) -> None:
    for command in sorted(set(main.commands) - {"run"}):  # what follows that is a program's
        help_text = CliRunner().invoke(main, [command, "--help"]).output
        for line in re.findall(rf"^whisper-max {command} ([^#\n]*)", page.read_text(), re.M):
            for option in re.findall(r"(?<!\S)--?[a-z][\w-]*", line):
                assert re.search(rf"(?<!\S){option}\b", help_text), f"{command} has no {option}"
