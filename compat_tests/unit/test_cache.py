"""The cache folder: whom it trusts, how files get into it, what is removed from it."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from whisper_max_backend.cli import main
from whisper_max_backend.engine.compile import artifacts, cache
from whisper_max_backend.system.file_locks import lock, locked

NAME = f"thing-{'0' * 32}.mef"
OTHER = f"other-{'1' * 32}.mef"
STRANGER = 54321

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache folder that the variable names; nothing is told yet."""
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    for name in ("_unusable", "_complained", "_tidied"):
        monkeypatch.setattr(cache, name, set())
    return tmp_path / "cache"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's own cache folder, which no variable names."""
    monkeypatch.delenv(cache.VARIABLE)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    return cache.cache_folder()


@pytest.fixture(params=[0o000, 0o002, 0o077])
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def whisper_max(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


@pytest.mark.usefixtures("umask")
def test_what_is_kept_is_found_and_belongs_to_this_user_alone(folder: Path) -> None:
    cache.keep(NAME, b"content")
    assert cache.find(NAME) == b"content"
    assert mode(folder) == 0o700
    assert mode(folder / NAME) == 0o600
    assert os.listdir(folder) == [NAME]


@pytest.mark.parametrize("damage", [b"", b"garbage", None])
def test_damaged_file_is_told_once_and_replaced(
    folder: Path, caplog: pytest.LogCaptureFixture, damage: bytes | None
) -> None:
    cache.keep(NAME, b"content")
    content = (folder / NAME).read_bytes()
    (folder / NAME).write_bytes(b"C" + content[1:] if damage is None else damage)
    assert cache.find(NAME) is cache.find(NAME) is None
    assert caplog.text.count("is damaged") == 1
    assert NAME in caplog.text
    cache.keep(NAME, b"content")
    assert cache.find(NAME) == b"content"


def test_file_and_folder_are_on_the_disk_before_and_after_the_rename(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = []
    fsync, replace = os.fsync, os.replace

    def record_fsync(descriptor: int) -> None:
        done.append("folder" if os.path.isdir(f"/dev/fd/{descriptor}") else "file")
        fsync(descriptor)

    def record_replace(source: str, target: Path) -> None:
        done.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "replace", record_replace)
    cache.keep(NAME, b"content")
    assert done == ["file", "rename", "folder"]


def test_damaged_kernels_are_translated_again(
    monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The compiler gets what the checksum is of, wherever that was damaged."""
    translated = []

    def translate(sources: Path, package: Path) -> None:
        translated.append(sources)
        package.write_bytes(b"sound")

    monkeypatch.setattr(artifacts, "_translate", translate)
    for process in ("first", "second", "third"):
        (tmp_path / process).mkdir()
        monkeypatch.setattr(artifacts, "scratch_folder", lambda p=process: tmp_path / p)
        assert artifacts.kernels_path().read_bytes() == b"sound"
        assert artifacts.kernels_path() == tmp_path / process / "whisper_kernels.mojoc"
        (kept,) = folder.glob("kernels-*.mojoc")
        if process == "second":
            assert len(translated) == 1
            kept.write_bytes(b"")
    assert len(translated) == 2
    assert "damaged" in caplog.text


def test_open_home_folder_is_closed_to_others(home: Path, folder: Path) -> None:
    home.mkdir(parents=True)
    home.chmod(0o775)
    cache.keep(NAME, b"content")
    assert cache.find(NAME) == b"content"
    assert mode(home) == 0o700
    assert not folder.exists()


def test_named_folder_that_others_read_is_used_as_it_is(folder: Path) -> None:
    folder.mkdir(mode=0o755)
    cache.keep(NAME, b"content")
    assert cache.find(NAME) == b"content"
    assert mode(folder) == 0o755


@pytest.mark.parametrize("open_to", [0o775, 0o1777])
def test_named_folder_that_others_write_to_is_refused_once(
    folder: Path, caplog: pytest.LogCaptureFixture, open_to: int
) -> None:
    cache.keep(NAME, b"content")
    folder.chmod(open_to)
    assert cache.find(NAME) is cache.find(NAME) is None
    cache.keep(OTHER, b"content")
    with cache.making(OTHER):
        pass
    assert os.listdir(folder) == [NAME]
    (message,) = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    for part in (str(folder), f"{open_to:04o}", "others may write", cache.VARIABLE):
        assert part in message
    assert cache.kept_in() is None


@needs_root
@pytest.mark.parametrize("whose", ["folder", "file"])
def test_another_users_files_are_not_used(
    folder: Path, caplog: pytest.LogCaptureFixture, whose: str
) -> None:
    cache.keep(NAME, b"content")
    os.chown(folder if whose == "folder" else folder / NAME, STRANGER, -1)
    assert cache.find(NAME) is None
    assert f"another user, number {STRANGER}" in caplog.text


@needs_root
def test_roots_files_are_used_by_others(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the image of a container, which root makes."""
    cache.keep(NAME, b"content")
    monkeypatch.setattr(os, "geteuid", lambda: STRANGER)
    assert cache.find(NAME) == b"content"
    os.chown(folder / NAME, STRANGER + 1, -1)
    assert cache.find(NAME) is None


def test_writable_file_is_not_used(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache.keep(NAME, b"content")
    (folder / NAME).chmod(0o666)
    assert cache.find(NAME) is None
    assert "0666" in caplog.text


def test_links_are_not_followed(folder: Path, tmp_path: Path) -> None:
    cache.keep(NAME, b"content")
    (folder / NAME).rename(tmp_path / "elsewhere")
    before = (tmp_path / "elsewhere").read_bytes()
    (folder / NAME).symlink_to(tmp_path / "elsewhere")
    assert cache.find(NAME) is None
    cache.keep(NAME, b"other")
    assert cache.find(NAME) == b"other"
    assert (tmp_path / "elsewhere").read_bytes() == before


def test_drafts_have_unpredictable_names(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drafts = set()
    replace = os.replace

    def record(source: str, target: Path) -> None:
        drafts.add(Path(source).name)
        replace(source, target)

    monkeypatch.setattr(os, "replace", record)
    for _ in range(2):
        cache.keep(NAME, b"content")
    assert len(drafts) == 2


def test_user_without_a_home(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unknown(*_: object) -> str:
        raise RuntimeError("could not determine the home directory")

    monkeypatch.delenv(cache.VARIABLE)
    for answer in (unknown, lambda *_: "~/.cache/whisper-max-backend"):
        monkeypatch.setattr("platformdirs.user_cache_dir", answer)
        assert cache.find(NAME) is None
        cache.keep(NAME, b"content")
        assert cache.kept_in() is None
    assert caplog.text.count("no home folder") == 1
    assert "no home folder" in whisper_max("cache").output


def killed_while(work: str) -> None:
    """A process that does something in the cache, says so, and is killed."""
    program = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from whisper_max_backend.engine.compile import cache, scratch_folder\n"
        "def stop(*_):\n"
        "    print('there', flush=True)\n"
        "    time.sleep(600)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program + work], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "there\n"
    child.kill()
    child.communicate()


KILLED = {
    "draft": f"os.replace = stop\ncache.keep({NAME!r}, b'content')",
    "lock": f"with cache.making({NAME!r}): stop()",
    "folder": "(scratch_folder.scratch_folder() / 'file').write_text('x'); stop()",
}


@pytest.mark.parametrize("work", KILLED.values(), ids=list(KILLED))
def test_killed_process_leaves_nothing_to_the_next(folder: Path, work: str) -> None:
    killed_while(work)
    assert len(os.listdir(folder)) == 1
    assert "goes at the next start" in whisper_max("cache").output
    assert cache.find(NAME) is None
    assert os.listdir(folder) == []
    with cache.making(NAME):
        cache.keep(NAME, b"content")
    assert os.listdir(folder) == [NAME]


def test_what_a_process_works_on_stays(folder: Path) -> None:
    folder.mkdir()
    work = folder / f"{cache.SCRATCH_PREFIX}abc"
    work.mkdir()
    held = lock(work / "lock")
    assert held is not None
    with locked(folder / f".{NAME}.lock", lambda: None):
        there = sorted(os.listdir(folder))
        assert cache.find(NAME) is None
        shown = whisper_max("cache").output
        cleared = whisper_max("cache", "--clear").output
        assert sorted(os.listdir(folder)) == there
        assert shown.count("in use") == cleared.count("in use") == 2
    os.close(held)


def test_command_tells_size_age_and_fate_of_each_file(folder: Path) -> None:
    days = 24 * 3600
    for name, size, age in ((NAME, 1, cache.UNUSED_DAYS + 1), (OTHER, 2, 2)):
        cache.keep(name, bytes(size << 20))
        last = time.time() - age * days
        os.utime(folder / name, (last, last))
    assert whisper_max("cache").output.splitlines() == [
        str(folder),
        f"     2.0 MB     2 days  {OTHER}",
        f"     1.0 MB    91 days  {NAME}  goes at the next start",
        "     3.0 MB in all",
    ]
    assert whisper_max("cache", "--clear").output.count("  removed\n") == 2
    assert whisper_max("cache").output == f"{folder}\n     0.0 MB in all\n"


def test_long_unused_files_go_and_used_ones_do_not(folder: Path) -> None:
    long_ago = time.time() - (cache.UNUSED_DAYS + 1) * 24 * 3600
    cache.keep(NAME, b"content")
    cache.keep(OTHER, b"content")
    (folder / "speech.mef").write_text("another program's")
    for name in (NAME, "speech.mef"):
        os.utime(folder / name, (long_ago, long_ago))
    recent = time.time() - 2 * 24 * 3600
    os.utime(folder / OTHER, (recent, recent))
    assert "goes at the next start" in whisper_max("cache").output
    assert cache.find(OTHER) == b"content"
    assert sorted(os.listdir(folder)) == [OTHER, "speech.mef"]
    assert (folder / OTHER).stat().st_mtime > recent  # used, it stays longer


def test_command_shows_and_clears(folder: Path) -> None:
    assert "nothing is compiled yet" in whisper_max("cache").output
    cache.keep(NAME, bytes(3 << 20))
    (folder / "notes").write_text("the user's own")
    (folder / ".notes.lock").write_text("the user's own")
    shown = whisper_max("cache")
    assert shown.exit_code == 0
    assert shown.output.splitlines()[0] == str(folder)
    for part in (NAME, "3.0 MB", "0 days"):
        assert part in shown.output
    assert "notes" not in shown.output
    assert whisper_max("cache", "--clear").exit_code == 0
    assert sorted(os.listdir(folder)) == [".notes.lock", "notes"]
    folder.chmod(0o777)
    refused = whisper_max("cache", "--clear")
    assert refused.exit_code == 1
    assert "others may write" in refused.output
