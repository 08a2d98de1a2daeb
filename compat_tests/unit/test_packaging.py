"""What is packed, and what importing it does."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import whisper_max_backend
from whisper_max_backend.engine.compile.cpu_target import TARGETS, apply_cpu_target

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (path,) = folder.glob("*.whl")
    return path


@pytest.mark.slow
def test_the_wheel_has_all_that_runs_and_no_more(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder, packed in (
        (ROOT / "mojo" / "whisper_kernels", "whisper_max_backend/mojo/whisper_kernels"),
        (ROOT / "whisper_max_backend", "whisper_max_backend"),
    ):
        for path in folder.rglob("*"):
            if path.suffix in (".py", ".mojo", ".flac", ".html", ".css") or path.name == "py.typed":
                assert f"{packed}/{path.relative_to(folder).as_posix()}" in names
    assert {name.split("/")[0] for name in names} == {
        "whisper_max_backend",
        f"whisper_max_backend-{whisper_max_backend.__version__}.dist-info",
    }


@pytest.mark.slow
def test_an_installed_wheel_finds_its_kernels(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from whisper_max_backend.engine.compile.artifacts import kernel_sources\n"
        "print(kernel_sources())"
    )
    printed = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=tmp_path
    ).stdout
    assert Path(printed.strip()) == tmp_path / "whisper_max_backend" / "mojo" / "whisper_kernels"


@pytest.mark.slow
def test_a_wheel_with_artifacts_compiles_nothing(tmp_path: Path) -> None:
    """What the cache of these tests holds already is taken from there."""
    target = apply_cpu_target()
    if target not in TARGETS:
        pytest.skip(f"wheels bring artifacts for {', '.join(TARGETS)}, not for this processor")
    environment = {**os.environ, "WHISPER_MAX_PREBUILD": target}
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, env=environment)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.endswith("-py3-none-manylinux_2_34_x86_64.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r})\n"
        "import whisper_max_backend\n"
        "from whisper_max_backend.cli import main\n"
        "assert whisper_max_backend.__file__.startswith(sys.path[0])\n"
        "main(sys.argv[1:])"
    )
    cache = tmp_path / "cache"
    for compute_type in ("float32", "int8"):
        run = subprocess.run(
            [sys.executable, "-c", program, "transcribe", "sample", "--compute-type", compute_type],
            check=True,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "WHISPER_MAX_CACHE": str(cache)},
        )
        assert "ask not what your country can do for you" in run.stdout
        assert "compiling" not in run.stderr
    assert not list(cache.rglob("*.mef"))
    assert not list(cache.rglob("*.mojoc"))


def test_importing_is_light_and_changes_nothing() -> None:
    program = (
        "import logging, os, signal, sys, threading, faster_whisper, numpy, warnings\n"
        "def state():\n"
        "    return (dict(os.environ), logging.root.handlers[:], logging.root.level,\n"
        "            signal.getsignal(signal.SIGINT), threading.active_count(),\n"
        "            warnings.filters[:], sys.excepthook, numpy.geterr())\n"
        "before = state()\n"
        "import whisper_max_backend\n"
        "assert state() == before\n"
        "assert not {'max', 'mojo', 'rich', 'torch', 'whisper'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_names_are_the_references() -> None:
    import faster_whisper

    assert set(faster_whisper.__all__) <= set(whisper_max_backend.__all__)
    for name in whisper_max_backend.__all__:
        assert hasattr(whisper_max_backend, name)
