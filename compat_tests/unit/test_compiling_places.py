"""Where graphs are compiled: without a home, on full disks, where memory cannot be executable."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from compat_tests.support.models import model_directory
from whisper_max_backend.engine.compile import artifacts, cache, scratch_folder
from whisper_max_backend.system.executable_memory import require_executable_memory

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
STRANGER = 54321
PACKAGE = b"a translated package"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder and a folder of temporary files for this test; nothing is compiled yet."""
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr(scratch_folder, "_current", None)
    for name in ("_unusable", "_complained", "_tidied"):
        monkeypatch.setattr(cache, name, set())
    return tmp_path


def run(program: str, *arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    """A Python program in a process of its own."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **variables})


def below(folder: Path, part: Path) -> bool:
    return folder in part.parents


# Full disks


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a megabyte."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"this process may not mount a small file system ({error})")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_kernels_are_translated_elsewhere_where_the_disk_is_full(
    place: Path,
    small_disk: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv(cache.VARIABLE, str(small_disk))
    (small_disk / "others").write_bytes(bytes(700 << 10))
    package = artifacts.kernels_path()
    assert below(place / "temporary", package)
    assert package.stat().st_size > 100_000
    assert os.listdir(small_disk) == ["others"]
    assert caplog.text.count("No space left") == 1


def test_disk_that_fills_up_while_mojo_translates(
    place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The compiler says so by its exit status and on standard error: it raises no OSError."""
    full: list[str] = []

    def run_mojo(command: list[str], **_: Any) -> Any:
        draft = Path(command[-1])
        if below(place / "cache", draft):
            full.append("No space left on device")
            message = b"LLVM ERROR: IO failure on output stream: No space left on device"
            return subprocess.CompletedProcess(command, 1, b"", message)
        draft.write_bytes(PACKAGE)
        return subprocess.CompletedProcess(command, 0, b"", b"")

    require_room = scratch_folder._require_room

    def room(folder: Path) -> None:
        if full:
            raise OSError(28, full[0])
        require_room(folder)

    monkeypatch.setattr("mojo.run.subprocess_run_mojo", run_mojo)
    monkeypatch.setattr(scratch_folder, "_require_room", room)
    package = artifacts.kernels_path()
    assert package.read_bytes() == PACKAGE
    assert below(place / "temporary", package)
    assert caplog.text.count("No space left") == 1
    assert not any(path.is_dir() for path in (place / "cache").iterdir())


def test_all_disks_are_full(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run_mojo(command: list[str], **_: Any) -> Any:
        return subprocess.CompletedProcess(command, 1, b"", b"IO failure on output stream")

    def no_room(folder: Path) -> None:
        raise OSError(28, "No space left on device", str(folder))

    monkeypatch.setattr("mojo.run.subprocess_run_mojo", run_mojo)
    monkeypatch.setattr(scratch_folder, "_require_room", no_room)
    with pytest.raises(RuntimeError, match="no room to compile") as caught:
        artifacts.kernels_path()
    for part in ("No space left", str(place / "temporary"), cache.VARIABLE):
        assert part in str(caught.value)


def test_kernels_that_do_not_compile_are_translated_once(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def run_mojo(command: list[str], **_: Any) -> Any:
        asked.append(command)
        return subprocess.CompletedProcess(command, 1, b"", b"error: expected ')'")

    monkeypatch.setattr("mojo.run.subprocess_run_mojo", run_mojo)
    with pytest.raises(RuntimeError, match=r"do not compile[\s\S]*expected '\)'"):
        artifacts.kernels_path()
    assert len(asked) == 1
    assert below(place / "cache", Path(asked[0][-1]))


def test_small_limit_on_files_is_as_a_full_disk(place: Path) -> None:
    program = (
        "import resource\n"
        "from whisper_max_backend.engine.compile.scratch_folder import scratch_folder\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))\n"
        "print(scratch_folder())"
    )
    child = run(program, TMPDIR=str(place / "temporary"))
    assert child.returncode == 0, child.stderr
    assert below(place / "temporary", Path(child.stdout.strip()))
    assert "cannot be kept" in child.stderr
    assert os.listdir(place / "temporary") == []  # removed at the exit


# Folders that cannot be written


def test_nothing_can_be_written(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "file").write_text("")
    monkeypatch.setenv(cache.VARIABLE, str(place / "file" / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(place / "file" / "temporary"))
    with pytest.raises(RuntimeError, match="no folder to compile") as caught:
        artifacts.kernels_path()
    for part in (str(place / "file" / "cache"), str(place / "file" / "temporary"), cache.VARIABLE):
        assert part in str(caught.value)


def test_a_killed_process_leaves_nothing_among_the_temporary_files(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(cache.VARIABLE, "/dev/null/cache")
    program = (
        "import os, signal\n"
        "from whisper_max_backend.engine.compile.scratch_folder import scratch_folder\n"
        "print(scratch_folder(), flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    child = run(program, TMPDIR=str(place / "temporary"))
    assert child.returncode == -signal.SIGKILL
    left = Path(child.stdout.strip())
    assert left.parent == place / "temporary"
    assert left.is_dir()
    own = scratch_folder.scratch_folder()
    assert os.listdir(place / "temporary") == [own.name]


def test_a_forked_process_has_a_folder_of_its_own(place: Path) -> None:
    program = (
        "import os, sys\n"
        "from whisper_max_backend.engine.compile.scratch_folder import scratch_folder\n"
        "mine = scratch_folder()\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    assert scratch_folder() != mine\n"
        "    sys.exit()\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
        "assert [path.name for path in mine.parent.iterdir()] == [mine.name]\n"
    )
    child = run(program)
    assert child.returncode == 0, child.stderr
    assert os.listdir(place / "cache") == []


# What MAX itself writes

COMPILE = """
    import logging, os
    from compat_tests.support.double_graph import double_graph, run
    from max.driver import CPU
    from whisper_max_backend.engine.compile import artifacts
    from whisper_max_backend.engine.compile.session import Session

    before = dict(os.environ)
    session = Session([CPU()])
    result = artifacts.compiled("double", double_graph, key={}, session=session)
    assert run(session, result) == [2, 4, 6]
    assert dict(os.environ) == before
"""
HOMES = {"unset": None, "root": "/", "missing": "/nonexistent"}


def as_a_stranger() -> list[str]:
    """A command's beginning: it runs as a user without a home, who may read all and write nothing.

    Where this process is not root's, it is its own user's.
    """
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("there is no setpriv to start a process of another user with")
    user = [f"--reuid={STRANGER}", f"--regid={STRANGER}", "--clear-groups"]
    capability = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    command = ["setpriv", *user, *capability]
    tried = subprocess.run([*command, "true"], capture_output=True, text=True)
    if tried.returncode != 0:
        pytest.skip(f"processes of another user cannot be started here ({tried.stderr.strip()})")
    return command


@contextlib.contextmanager
def open_folder() -> Iterator[Path]:
    """A folder that every user may write to, not below one that only this user may enter."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o1777)
        yield Path(folder)


def compile_as_a_stranger(home: str | None, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    for name in ("HOME", "XDG_CACHE_HOME", "MODULAR_CACHE_DIR", cache.VARIABLE):
        environment.pop(name, None)
    if home is not None:
        environment["HOME"] = home
    return subprocess.run(
        [*as_a_stranger(), sys.executable, "-c", textwrap.dedent(COMPILE)],
        env={**environment, **variables},
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.mark.parametrize("home", HOMES.values(), ids=list(HOMES))
def test_without_a_home_only_the_temporary_folder_is_needed(home: str | None) -> None:
    if os.geteuid() != 0 and home is None:
        pytest.skip("only root can start a process of a user who is not in the list of users")
    with open_folder() as folder:
        child = compile_as_a_stranger(home, TMPDIR=str(folder))
        assert child.returncode == 0, child.stderr
        assert child.stderr.count("cannot be kept") == 1
        assert "is not writable" not in child.stderr  # MAX about its own caches
        assert os.listdir(folder) == []


def test_without_a_home_a_cache_of_its_own_is_enough() -> None:
    with open_folder() as folder:
        where = {"TMPDIR": "/nonexistent", cache.VARIABLE: str(folder / "cache")}
        child = compile_as_a_stranger("/", **where)
        assert child.returncode == 0, child.stderr
        assert "cannot be kept" not in child.stderr
        (kept,) = (folder / "cache").iterdir()
        assert kept.suffix == ".mef"


def test_maxs_own_caches_stay_where_the_user_wants_them() -> None:
    with open_folder() as folder:
        child = compile_as_a_stranger(
            "/", TMPDIR=str(folder), MODULAR_CACHE_DIR=str(folder / "of-max")
        )
        assert child.returncode == 0, child.stderr
        assert os.listdir(folder) == ["of-max"]
        assert os.listdir(folder / "of-max")


# Memory that must not be executable


def forbid_executable_memory() -> bool:
    """Whether the kernel now forbids it to this process, as systemd's MemoryDenyWriteExecute."""
    set_mdwe, refuse_exec_gain = 65, 1
    forbidden: bool = ctypes.CDLL(None).prctl(set_mdwe, refuse_exec_gain, 0, 0, 0) == 0
    return forbidden


FORBIDDEN = """
    import logging, sys
    from compat_tests.unit.test_compiling_places import forbid_executable_memory
    import numpy, ctranslate2, faster_whisper
    if not forbid_executable_memory():
        print("the kernel does not know PR_SET_MDWE")
        sys.exit()
    import whisper_max_backend
    from whisper_max_backend.plugins import backends
    try:
        whisper_max_backend.WhisperModel(sys.argv[1], device="cpu", compute_type="float32")
    except RuntimeError as error:
        print(error)
    print(backends()["max"].probe())
    whisper_max_backend.install()
    model = faster_whisper.WhisperModel(sys.argv[1], device="cpu", compute_type="float32")
    print(type(model.model).__module__)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="MemoryDenyWriteExecute is Linux's")
def test_process_that_may_not_make_memory_executable() -> None:
    program = textwrap.dedent(FORBIDDEN)
    child = run(program, model_directory("tiny.en"), PYTHONPATH=str(ROOT))
    assert child.returncode == 0, child.stderr
    if "PR_SET_MDWE" in child.stdout.splitlines()[0] and child.stdout.count("\n") == 1:
        pytest.skip(child.stdout.strip())
    error, probed, swapped = child.stdout.splitlines()
    for told in (error, probed, child.stderr):
        assert "MemoryDenyWriteExecute" in told
        assert "may not make memory executable" in told
    assert "usable" not in error
    assert swapped == "ctranslate2._ext"


def test_this_process_may_make_memory_executable() -> None:
    require_executable_memory()
