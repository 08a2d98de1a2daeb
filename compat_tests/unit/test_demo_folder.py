"""The folder of a server of `whisper-max demo`: private, and gone with it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from whisper_max_backend.demo import folder as folders
from whisper_max_backend.system import private_folder


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_the_folder_is_its_user_s_and_does_not_stay(temporary: Path) -> None:
    with pytest.raises(SystemExit), folders.private_folder() as folder:  # noqa: PT012
        assert folder.parent == temporary
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "upload").write_bytes(b"sound")
        raise SystemExit
    assert not list(temporary.iterdir())


def test_a_leftover_goes_with_the_next_start(temporary: Path) -> None:
    left = temporary / "whisper-max-demo-left"
    left.mkdir()
    (left / "upload").write_bytes(b"sound")
    elsewhere = temporary / "elsewhere"
    elsewhere.mkdir()
    link = temporary / "whisper-max-demo-link"
    link.symlink_to(elsewhere)
    file = temporary / "whisper-max-demo-file"
    file.touch()
    with folders.private_folder() as first, folders.private_folder() as second:
        assert first.exists(), "a folder in use stays"
        assert first != second
        assert not left.exists()
        assert elsewhere.exists()
        assert link.exists()
        assert file.exists()


def test_another_user_s_folder_is_left_alone(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = temporary / "whisper-max-demo-left"
    left.mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: left.stat().st_uid + 1)
    private_folder.remove_leftovers(temporary, "whisper-max-demo-")
    assert left.exists()
