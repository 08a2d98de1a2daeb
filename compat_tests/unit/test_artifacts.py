"""The cache of compiled graphs: found, damaged, unwritable, shared between processes."""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from max.driver import CPU
from max.dtype import DType
from max.graph import DeviceRef, Graph, Module, TensorType, Weight

from compat_tests.support.double_graph import double_graph, run
from whisper_max_backend.engine.compile import artifacts, cpu_target, progress, scratch_folder
from whisper_max_backend.engine.compile import cache as places
from whisper_max_backend.engine.compile.session import Session


def refuse() -> Graph:
    raise AssertionError("the artifact should have been found")


@pytest.fixture(scope="module")
def session() -> Session:
    return Session([CPU()])


@pytest.fixture(scope="module")
def artifact(session: Session, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of one sound artifact, compiled once for the module."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(places.VARIABLE, str(folder))
        artifacts.compiled("double", double_graph, key={}, session=session)
    return only_artifact(folder).read_bytes()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(places.VARIABLE, str(tmp_path))
    monkeypatch.setattr(places, "_unusable", set())
    monkeypatch.setattr(places, "_complained", set())
    return tmp_path


@pytest.fixture
def kept(cache: Path, artifact: bytes, session: Session) -> Path:
    """A cache that holds the artifact of double_graph with an empty key."""
    path = cache / artifacts.artifact_name("double", {}, session)
    path.write_bytes(artifact)
    return path


def only_artifact(folder: Path) -> Path:
    (path,) = folder.glob("*.mef")
    return path


def test_found_artifact_runs_without_building(kept: Path, session: Session) -> None:
    found = artifacts.compiled("double", refuse, key={}, session=session)
    assert run(session, found) == [2, 4, 6]


def test_artifact_of_the_wheel_is_trusted_as_the_package_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, artifact: bytes, session: Session
) -> None:
    file = artifacts.artifact_name("double", {}, session)
    (tmp_path / file).write_bytes(artifact)
    (tmp_path / file).chmod(0o666)
    monkeypatch.setattr(artifacts, "_PREBUILT", tmp_path)
    monkeypatch.setenv(places.VARIABLE, str(tmp_path / "cache"))
    found = artifacts.compiled("double", refuse, key={}, session=session)
    assert run(session, found) == [2, 4, 6]
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("damage", ["empty", "short", "flipped", "appended"])
def test_damaged_artifact_is_logged_and_made_anew(
    kept: Path,
    artifact: bytes,
    session: Session,
    caplog: pytest.LogCaptureFixture,
    damage: str,
) -> None:
    middle = len(artifact) // 2
    kept.write_bytes(
        {
            "empty": b"",
            "short": artifact[:middle],
            "flipped": artifact[:middle] + bytes([artifact[middle] ^ 1]) + artifact[middle + 1 :],
            "appended": artifact + b"x",
        }[damage]
    )
    result = artifacts.compiled("double", double_graph, key={}, session=session)
    assert run(session, result) == [2, 4, 6]
    assert "damaged" in caplog.text
    assert run(session, artifacts.compiled("double", refuse, key={}, session=session)) == [2, 4, 6]


def test_content_that_max_refuses_is_made_anew(
    kept: Path, session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    mef = b"not a compiled graph"
    kept.write_bytes(mef + places._FOOTER + hashlib.sha256(mef).digest())
    result = artifacts.compiled("double", double_graph, key={}, session=session)
    assert run(session, result) == [2, 4, 6]
    assert "refuses" in caplog.text


def test_key_decides(kept: Path, session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = artifacts.artifact_name
    same = digest("double", {"a": 1, "b": 2}, session)
    assert same == digest("double", {"b": 2, "a": 1}, session)
    others = {
        digest("other", {"a": 1, "b": 2}, session),
        digest("double", {"a": 2, "b": 2}, session),
        digest("double", {"a": "1", "b": 2}, session),
    }
    monkeypatch.setattr(artifacts, "max_version", "0")
    others.add(digest("double", {"a": 1, "b": 2}, session))
    monkeypatch.undo()
    monkeypatch.setattr(artifacts, "describe_cpu_target", lambda: "another")
    others.add(digest("double", {"a": 1, "b": 2}, session))
    monkeypatch.undo()
    monkeypatch.setattr(artifacts, "_contents", lambda folder, pattern: ("changed",))
    others.add(digest("double", {"a": 1, "b": 2}, session))
    assert len(others) == 6
    assert same not in others


def test_source_digest_is_of_content_alone(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder / "sub").mkdir(parents=True)
        (tmp_path / folder / "sub" / "a.mojo").write_text("x")
        (tmp_path / folder / "notes.txt").write_text(folder)
    one = artifacts._contents(tmp_path / "one", "*.mojo")
    assert one == artifacts._contents(tmp_path / "two", "*.mojo")
    (tmp_path / "two" / "sub" / "a.mojo").write_text("y")
    artifacts._contents.cache_clear()
    assert one != artifacts._contents(tmp_path / "two", "*.mojo")


def test_unwritable_cache_is_told_once(
    cache: Path,
    session: Session,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (cache / "file").write_text("")
    monkeypatch.setenv(places.VARIABLE, str(cache / "file" / "below"))
    for _ in range(2):
        result = artifacts.compiled("double", double_graph, key={}, session=session)
        assert run(session, result) == [2, 4, 6]
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    told = [text for text in warnings if "cannot be kept" in text]
    assert len(told) == 1
    assert places.VARIABLE in told[0]
    assert not any("once" in text for text in warnings)


def test_full_cache_leaves_nothing_behind(
    cache: Path,
    session: Session,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    result = artifacts.compiled("double", double_graph, key={}, session=session)
    assert run(session, result) == [2, 4, 6]
    assert "No space left" in caplog.text
    assert [path for path in cache.iterdir() if path != scratch_folder.scratch_folder()] == []


@pytest.mark.slow
def test_module_of_graphs_takes_external_weights(cache: Path, session: Session) -> None:
    cpu = DeviceRef.CPU()

    def build() -> Module:
        module = Module()
        for name in ("first", "second"):
            inputs = [TensorType(DType.float32, ["n"], cpu)]
            with Graph(name, input_types=inputs, module=module) as graph:
                weight = graph.add_weight(Weight(f"{name}/weight", DType.float32, [1], cpu))
                graph.output(graph.inputs[0].tensor * weight)
        return module

    def refuse_module() -> Module:
        raise AssertionError("the artifact should have been found")

    weights = {
        "first/weight": np.array([2], np.float32),
        "second/weight": np.array([3], np.float32),
    }
    for made in (build, refuse_module):
        artifact = artifacts.compiled("module", made, key={}, session=session)
        models = session.init_all(artifact, weights_registry=weights)
        for name, factor in (("first", 2), ("second", 3)):
            (result,) = models[name].execute(np.array([1, 2], np.float32))
            assert list(result.to_numpy()) == [factor, 2 * factor]


def test_failing_build_is_raised_and_releases_the_lock(cache: Path, session: Session) -> None:
    def broken() -> Graph:
        raise RuntimeError("no such layer")

    for _ in range(2):
        with pytest.raises(RuntimeError, match="no such layer"):
            artifacts.compiled("double", broken, key={}, session=session)
    assert not list(cache.glob("*.mef"))


@pytest.mark.slow
def test_processes_compile_once(cache: Path) -> None:
    program = textwrap.dedent(
        """
        import sys
        from whisper_max_backend.engine.compile import artifacts
        from max.driver import CPU
        from whisper_max_backend.engine.compile.session import Session
        from compat_tests.support.double_graph import double_graph, run

        def build():
            print("built")
            return double_graph()

        session = Session([CPU()])
        assert run(session, artifacts.compiled("double", build, key={}, session=session))[0] == 2
        """
    )
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, env=environment, text=True
        )
        for _ in range(2)
    ]
    printed = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sorted(printed) == ["", "built\n"]


def test_terminal_sees_what_happens(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "1000")
    with progress.announced("encoder", tmp_path, 30):
        pass
    told = capsys.readouterr().err
    for part in ("encoder", "30 s", "once", str(tmp_path)):
        assert part in told


def test_log_sees_what_happens(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with caplog.at_level(logging.INFO), progress.announced("encoder", tmp_path, 30):
        pass
    assert str(tmp_path) in caplog.text
    assert capsys.readouterr() == ("", "")


SKYLAKE = frozenset(
    ["avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"]
    + ["avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"]
)


LAPTOP = frozenset(
    ["avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"]
    + ["avx_vnni", "gfni", "vaes", "vpclmulqdq"]
)


@pytest.mark.parametrize(
    ("features", "target"),
    [
        (SKYLAKE | {"avx512_vnni", "avx512_bf16", "amx_tile", "amx_int8"}, "cooperlake"),
        (SKYLAKE | {"avx512_vnni"}, "cascadelake"),
        (LAPTOP, "alderlake"),
        (LAPTOP - {"avx_vnni"}, "x86-64-v3"),
        (LAPTOP | SKYLAKE | {"avx512_vnni"}, "cascadelake"),
        (SKYLAKE, "x86-64-v4"),
        (SKYLAKE - {"avx512vl"}, "x86-64-v3"),
        (SKYLAKE - {"fma"}, ""),
        (frozenset(), ""),
    ],
)
def test_best_target(features: frozenset[str], target: str) -> None:
    assert cpu_target.best_target(features, "x86_64") == target
    assert cpu_target.best_target(features, "aarch64") == ""
    assert cpu_target.best_target(features, "riscv64") == ""


# Of what Linux lists.
PI_4 = frozenset({"fp", "asimd", "crc32"})
PI_5 = PI_4 | {"aes", "sha2", "atomics", "asimdhp", "asimdrdm", "lrcpc", "asimddp"}
GRAVITON_3 = PI_5 | {"jscvt", "fcma", "sha3", "sve", "asimdfhm", "ilrcpc", "flagm", "i8mm", "bf16"}


@pytest.mark.parametrize(
    ("features", "target"),
    [
        (GRAVITON_3, "apple-m2"),
        (GRAVITON_3 - {"i8mm"}, "cortex-a76"),
        (GRAVITON_3 - {"sha3"}, "cortex-a76"),
        (PI_5, "cortex-a76"),
        (PI_4, ""),
        (frozenset(), ""),  # macOS
    ],
)
def test_best_target_of_arm(features: frozenset[str], target: str) -> None:
    assert cpu_target.best_target(features, "aarch64") == target
    assert cpu_target.best_target(features, "x86_64") == ""


@pytest.mark.parametrize(
    ("already", "asked", "target"),
    [
        ("", None, "x86-64-v4"),
        ("", "x86-64-v3", "x86-64-v3"),
        ("", "native", ""),
        ("generic", "x86-64-v3", "generic"),
    ],
)
def test_apply_target(
    monkeypatch: pytest.MonkeyPatch, already: str, asked: str | None, target: str
) -> None:
    applied = [already]
    monkeypatch.setattr(cpu_target, "get_virtual_cpu_target", lambda: applied[-1])
    monkeypatch.setattr(cpu_target, "set_virtual_cpu_target", applied.append)
    monkeypatch.setattr(cpu_target, "processor_features", lambda: SKYLAKE)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.delenv(cpu_target.VARIABLE, raising=False)
    if asked is not None:
        monkeypatch.setenv(cpu_target.VARIABLE, asked)
    assert cpu_target.apply_cpu_target() == target
    assert applied[-1] == target
    assert target in cpu_target.describe_cpu_target()


def test_unknown_target_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_target, "get_virtual_cpu_target", lambda: "")
    monkeypatch.setenv(cpu_target.VARIABLE, "pentium-of-tomorrow")
    with pytest.raises(ValueError, match=f"{cpu_target.VARIABLE}.*{cpu_target.TILES}"):
        cpu_target.apply_cpu_target()
