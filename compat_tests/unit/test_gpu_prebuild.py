"""Artifacts of GPUs for a wheel: what a process on such a machine looks for, whatever its CPU."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from max.driver import get_virtual_cpu_target

from compat_tests.support.models import model_directory
from whisper_max_backend.engine.checkpoint.dimensions import PUBLISHED
from whisper_max_backend.engine.checkpoint.load import load_checkpoint
from whisper_max_backend.engine.compile import prebuild as module
from whisper_max_backend.engine.compile.cpu_target import (
    LEAST,
    TARGETS,
    VARIABLE,
    apply_cpu_target,
    compiling_for,
)
from whisper_max_backend.engine.compile.prebuild import put
from whisper_max_backend.engine.cpu import prebuild as cpu
from whisper_max_backend.engine.gpu import prebuild as gpu

ROOT = Path(__file__).parents[2]
NAMES = """
import os, sys
from max.driver import Accelerator
from whisper_max_backend.engine.checkpoint.dimensions import PUBLISHED
from whisper_max_backend.engine.compile.artifacts import artifact_name
from whisper_max_backend.engine.compile.session import Session
from whisper_max_backend.engine.gpu.prebuild import pretend_gpu, specs
pretend_gpu(sys.argv[1])
device = Accelerator()
session = Session([device])
for spec in specs([PUBLISHED["base"], PUBLISHED["large-v3"]], device, session):
    print(artifact_name(spec["name"], spec["key"], session), flush=True)
os._exit(0)
"""


def names(target: str, host: str) -> list[str]:
    """Of the artifacts for a GPU, in a process whose CPU is another."""
    command = [sys.executable, "-c", NAMES, target]
    environment = {**os.environ, VARIABLE: host}
    result = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    return result.stdout.split()


def test_they_serve_every_cpu() -> None:
    hopper, other = names("sm_90", TARGETS[0]), names("sm_89", TARGETS[0])
    assert names("sm_90", LEAST) == hopper
    assert len(hopper) == len(other) == 5  # and what the card has to prove
    assert len({*hopper, *other}) == 10


@pytest.mark.parametrize("name", ["tiny.en", "base"])
def test_sizes_are_those_of_the_models(name: str) -> None:
    assert load_checkpoint(str(model_directory(name))).dimensions == PUBLISHED[name]


def test_a_target_is_set_aside() -> None:
    """What asks for this process's target gets it while something is compiled for another."""
    own = apply_cpu_target()
    with contextlib.suppress(ZeroDivisionError), compiling_for("x86-64-v2"):
        assert get_virtual_cpu_target() == "x86-64-v2"
        assert apply_cpu_target() == own
        raise ZeroDivisionError
    assert get_virtual_cpu_target() == own
    assert apply_cpu_target() == own


def test_what_is_not_in_the_cache_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec: Any = {"name": "a", "key": {}, "session": SimpleNamespace(devices=[])}
    monkeypatch.setattr(module, "compiled", lambda **_: None)
    monkeypatch.setattr(module, "cache_folder", lambda: tmp_path)
    with pytest.raises(RuntimeError, match=r"a-\w+\.mef is to be copied, but it could not be kept"):
        put([spec], tmp_path)


@pytest.mark.parametrize(
    ("asked", "models", "expected"),
    [
        ("all", "", [("cpu", [*TARGETS])]),
        ("cascadelake", "", [("cpu", ["cascadelake"])]),
        ("all,sm_80", "", [("cpu", [*TARGETS]), ("sm_80", [])]),
        (
            "sm_90,x86-64-v3,gfx942",
            "base,tiny.en",
            [
                ("cpu", ["x86-64-v3"]),
                ("sm_90", ["base", "tiny.en"]),
                ("gfx942", ["base", "tiny.en"]),
            ],
        ),
        ("", "base", []),
    ],
)
def test_a_wheel_brings_what_is_asked_for(
    asked: str, models: str, expected: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("hatchling", reason="wheels are built with hatchling, of the test extra")
    spec = importlib.util.spec_from_file_location("hook", ROOT / "mojo" / "prebuild_hook.py")
    assert spec is not None
    assert spec.loader is not None
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
    made: list[Any] = []
    monkeypatch.setattr(cpu, "prebuild", lambda _, targets: made.append(("cpu", targets)))
    monkeypatch.setattr(gpu, "prebuild", lambda _, target, models: made.append((target, models)))
    monkeypatch.setenv("WHISPER_MAX_PREBUILD", asked)
    monkeypatch.setenv("WHISPER_MAX_PREBUILD_MODELS", models)
    built: Any = hook.PrebuildHook(str(ROOT), {}, None, None, "", "wheel")
    built.initialize("standard", {"force_include": {}})
    built.finalize("standard", {}, "")
    assert [(kind, list(names)) for kind, names in made] == expected
