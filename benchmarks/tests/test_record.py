"""Records: what they say of their run, and that those in the repository have the one format."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from benchmarks import record as records
from benchmarks.record import KEPT, begin, read


@pytest.fixture
def place(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository in place of this one."""
    monkeypatch.setattr(records, "ROOT", repository)
    monkeypatch.setattr(records, "KEPT", repository / "benchmarks" / "results")
    return repository


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    record = begin("cpu", "tiny.en", rows=[1, 2])
    path = record.keep(tmp_path)
    assert path.name == f"cpu-tiny.en-{record.machine['name']}.json"
    assert read(path) == record
    assert json.loads(path.read_text())["rows"] == [1, 2]


def test_a_record_says_whether_the_commit_is_what_was_measured(place: Path) -> None:
    command = ["git", "rev-parse", "HEAD"]
    head = subprocess.run(command, cwd=place, capture_output=True, text=True).stdout.strip()
    assert (begin("cpu").commit, begin("cpu").uncommitted_changes) == (head, False)
    (place / "benchmarks" / "results" / "new.json").write_text("{}")
    assert begin("cpu").uncommitted_changes is False
    (place / "new.py").write_text("b = 2\n")
    assert begin("cpu").uncommitted_changes is True


def test_a_record_without_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "ROOT", tmp_path)
    monkeypatch.setattr(records, "KEPT", tmp_path / "results")
    assert (begin("cpu").commit, begin("cpu").uncommitted_changes) == (None, None)


def test_a_record_has_the_command_with_its_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["benchmarks", "cpu", "-k", "a b"])
    monkeypatch.setenv("WHISPER_MAX_CPU_TARGET", "x86-64-v3")
    command = begin("cpu").command
    assert command is not None
    assert command.startswith("WHISPER_MAX_CPU_TARGET=x86-64-v3 ")
    assert command.endswith("python -m benchmarks cpu -k 'a b'")


@pytest.mark.parametrize("broken", [[], ["too slow"]])
def test_a_broken_promise_is_the_exit_status(tmp_path: Path, broken: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        begin("long", broken=broken).finish(tmp_path)
    assert ended.value.code == len(broken)


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text('{"date": "today"}')
    with pytest.raises(ValueError, match=r"other\.json is no record"):
        read(path)


@pytest.mark.parametrize("path", sorted(KEPT.iterdir()), ids=lambda path: path.name)
def test_kept_records_have_the_one_format(path: Path) -> None:
    record = read(path)
    assert path.name == record.file_name
    assert record.found
