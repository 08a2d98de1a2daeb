"""What the processor has, and what happens where it cannot run MAX."""

from __future__ import annotations

import logging
import os
import platform
import subprocess
import sys
from typing import Any

import ctranslate2
import faster_whisper
import pytest

import whisper_max_backend
from compat_tests.support.models import model_directory
from whisper_max_backend import install, load_model, plugins
from whisper_max_backend.engine.whisper import Whisper
from whisper_max_backend.swap import installation
from whisper_max_backend.system import cpu_features

V2 = frozenset({"sse4_2", "ssse3", "popcnt", "cx16", "aes"})
V3 = V2 | cpu_features.X86_64_V3


@pytest.fixture
def without_avx2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_features, "_architecture", lambda: "x86_64")
    monkeypatch.setattr(cpu_features, "processor_features", lambda: V3 - {"avx2"})
    for told in (installation._told, plugins._tell_passed_over):
        told.clear() if isinstance(told, set) else told.cache_clear()


@pytest.mark.parametrize(
    ("machine", "features", "missing"),
    [
        ("x86_64", V3, []),
        ("x86_64", V2, sorted(cpu_features.X86_64_V3)),
        ("x86_64", V3 - {"fma"}, ["fma"]),
        ("x86_64", frozenset(), []),  # not known
        ("aarch64", {"asimd", "fp"}, ["asimddp", "atomics"]),
        ("aarch64", {"asimd", "fp", "atomics", "asimddp"}, []),
        ("arm64", frozenset(), []),
    ],
)
def test_missing_features(
    monkeypatch: pytest.MonkeyPatch, machine: str, features: frozenset[str], missing: list[str]
) -> None:
    monkeypatch.setattr(cpu_features, "_architecture", lambda: machine)
    monkeypatch.setattr(cpu_features, "processor_features", lambda: features)
    assert cpu_features.missing_features() == missing


@pytest.mark.parametrize(
    ("listed", "active", "inactive", "expected"),
    [
        (V3, V3, {"avx512f"}, V3),
        (V3 | {"avx512f", "avx512_vnni"}, V3, {"avx512f"}, V3 | {"avx512_vnni"}),  # QEMU
        (V2, frozenset(), frozenset(), V2),  # no glibc
        (frozenset(), cpu_features.X86_64_V3, {"avx512f"}, cpu_features.X86_64_V3),  # QEMU on ARM
    ],
)
def test_cpuid_corrects_what_linux_lists(
    monkeypatch: pytest.MonkeyPatch,
    listed: frozenset[str],
    active: frozenset[str],
    inactive: frozenset[str],
    expected: frozenset[str],
) -> None:
    monkeypatch.setattr(cpu_features, "_listed_features", lambda: listed)
    monkeypatch.setattr(cpu_features, "_cpuid_features", lambda: (active, inactive))
    assert cpu_features.processor_features.__wrapped__() == expected


@pytest.mark.skipif(
    platform.machine() != "x86_64" or platform.libc_ver()[0] != "glibc",
    reason="only glibc on x86-64 tells CPUID and can be told to hide some of it",
)
def test_cpuid_is_asked_in_this_process() -> None:
    """What this machine lists, it can use, unless glibc is told otherwise."""
    code = (
        "from whisper_max_backend.system.cpu_features import _cpuid_features, _listed_features\n"
        "print(*sorted(_listed_features() & _cpuid_features()[1]))"
    )
    tunables = "glibc.cpu.hwcaps=-AVX2,-FMA"
    for more, hidden in (({}, ""), ({"GLIBC_TUNABLES": tunables}, "avx2 fma")):
        process = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, **more},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert process.stdout.strip() == hidden


@pytest.mark.usefixtures("without_avx2")
def test_max_by_name_is_refused() -> None:
    path = str(model_directory("tiny.en"))
    calls: list[Any] = [
        lambda: load_model(path, "max"),
        lambda: whisper_max_backend.WhisperModel(path),
        lambda: Whisper(path),
    ]
    for call in calls:
        with pytest.raises(RuntimeError, match="lacks avx2: .*'host'.*backend=\"ctranslate2\""):
            call()


@pytest.mark.usefixtures("without_avx2")
def test_auto_falls_back_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        loaded: Any = load_model(str(model_directory("tiny.en")), device="cpu")
        assert type(loaded) is faster_whisper.WhisperModel
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "'ctranslate2' is used, not 'max' (MAX cannot run on this processor" in record.message


@pytest.mark.usefixtures("without_avx2")
def test_the_swap_falls_back_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    stock = ctranslate2.models.Whisper
    with install():
        for _ in range(2):
            loaded = faster_whisper.WhisperModel(str(model_directory("tiny.en")), device="cpu")
            assert type(loaded.model) is stock
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "lacks avx2" in record.message
