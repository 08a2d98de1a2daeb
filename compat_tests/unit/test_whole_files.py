"""Files that take their place when all is written."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from whisper_max_backend.system.whole_files import whole_file


def test_what_is_in_place_stays_until_all_is_written(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    for content, before in ((b"old", None), (b"new", b"old")):
        with whole_file(path) as file:
            file.write(content)
            (draft,) = (one for one in tmp_path.iterdir() if one != path)
            assert draft.name.startswith(".a.txt.")
            assert (path.read_bytes() if path.exists() else None) == before
        assert (path.read_bytes(), list(tmp_path.iterdir())) == (content, [path])


@pytest.mark.parametrize("error", [OSError, KeyError, KeyboardInterrupt])
def test_an_error_leaves_what_was_there(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"old")

    def write() -> None:
        with whole_file(path) as file:
            file.write(b"new")
            raise error

    with pytest.raises(error):
        write()
    assert (path.read_bytes(), list(tmp_path.iterdir())) == (b"old", [path])


def test_a_place_that_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(IsADirectoryError), whole_file(tmp_path / "a") as file:
        file.write(b"new")
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


@pytest.mark.parametrize("mode", [0o600, 0o666])
def test_who_may_read_it(tmp_path: Path, mode: int) -> None:
    before = os.umask(0o022)
    try:
        with whole_file(tmp_path / "a", mode=mode) as file:
            assert stat.S_IMODE(os.fstat(file.fileno()).st_mode) == mode & ~0o022
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == mode & ~0o022


def test_it_is_on_the_disk_before_it_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    replace, fsync = os.replace, os.fsync

    def synced(descriptor: int) -> None:
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        # What is in a buffer of Python's would come too late.
        size = 0 if is_folder else os.fstat(descriptor).st_size
        done.append("folder" if is_folder else f"file of {size}")
        fsync(descriptor)

    def replaced(source: Path, target: Path) -> None:
        done.append("in place")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    with whole_file(tmp_path / "a", synced=True) as file:
        file.write(b"new")
    assert done == ["file of 3", "in place", "folder"]
    del done[:]
    with whole_file(tmp_path / "a") as file:
        file.write(b"new")
    assert done == ["in place"]
