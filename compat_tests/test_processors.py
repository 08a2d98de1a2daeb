"""Other processors than this machine's, by QEMU: with AVX2, and too old for MAX.

Debian's package is `qemu-user`. Emulation is slow, so what transcribes is small or short.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import faster_whisper
import pytest

from compat_tests.support.commands import find_command
from compat_tests.support.miniature import make_model
from compat_tests.support.models import model_directory, reference_transcription
from compat_tests.support.recordings import audio_file
from whisper_max_backend.cli.run import SITE, VARIABLE

REQUIRED = os.environ.get("WHISPER_MAX_EMULATOR_TESTS") == "required"
TOO_OLD = pytest.mark.parametrize("processor", ["Nehalem", "SandyBridge"])
"""The levels x86-64-v2, and v2 with AVX."""
OPTIONS: dict[str, Any] = {
    "language": "en",
    "beam_size": 1,
    "temperature": 0.0,
    "no_speech_threshold": None,
}
OURS = "whisper_max_backend.engine.whisper"
TRANSCRIBE = """
segments, _ = model.transcribe(sys.argv[2], **json.loads(sys.argv[3]))
print(type(model.model).__module__, *(token for segment in segments for token in segment.tokens))
"""
LOAD = {
    name: f"import json, logging, sys, {call.split('.')[0]}\n"
    f"logging.basicConfig(level=logging.WARNING)\nmodel = {call}(sys.argv[1], device='cpu')"
    for name, call in (
        ("auto", "whisper_max_backend.load_model"),
        ("swap", "faster_whisper.WhisperModel"),
        ("ours", "whisper_max_backend.WhisperModel"),
    )
}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        platform.machine() != "x86_64" or sys.platform != "linux",
        reason="QEMU's user emulation runs what is built for x86-64 Linux",
    ),
]


@pytest.fixture(scope="module")
def emulator() -> str:
    return find_command("qemu-x86_64", package="qemu-user", required=REQUIRED)


@pytest.fixture(scope="module")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose numbers have the types of tiny.en's: the same compiled kernels serve both."""
    shape: Any = {"n_state": 64, "n_audio_layer": 1, "n_text_layer": 1, "vocabulary": "english"}
    shape |= {"n_audio_head": 1, "n_text_head": 1, "n_languages": 8}
    return make_model(tmp_path_factory.mktemp("model"), **shape, quantization="float16")


def python(
    *arguments: object, on: tuple[str, ...] = (), **variables: str
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **variables}
    environment.pop("OPENBLAS_CORETYPE", None)  # names kernels that the processor may not have
    return subprocess.run(
        [*on, sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
        env=environment,
    )


def stock_tokens(model: Path, options: dict[str, Any]) -> list[str]:
    """What stock faster-whisper hears in "command" on this machine."""
    stock = faster_whisper.WhisperModel(str(model), device="cpu")
    segments, _ = stock.transcribe(str(audio_file("command.flac")), **options)
    tokens = [str(token) for segment in segments for token in segment.tokens]
    assert tokens
    return tokens


@TOO_OLD
def test_backends_says_what_an_old_processor_lacks(emulator: str, processor: str) -> None:
    command = ("-m", "whisper_max_backend", "backends", "--json")
    result = python(*command, on=(emulator, "-cpu", processor))
    assert result.returncode == 0, result.stderr
    backends = {backend["name"]: backend for backend in json.loads(result.stdout)}
    assert not backends["max"]["usable"]
    assert "lacks" in backends["max"]["reason"]
    assert "avx2" in backends["max"]["reason"]
    assert backends["ctranslate2"]["usable"]


@TOO_OLD
def test_max_by_name_is_refused(emulator: str, processor: str) -> None:
    arguments = ("-c", LOAD["ours"], model_directory("tiny.en"))
    result = python(*arguments, on=(emulator, "-cpu", processor))
    assert result.returncode == 1, "an exception, not a signal"
    assert "RuntimeError: MAX cannot run on this processor" in result.stderr


@TOO_OLD
@pytest.mark.parametrize("how", ["auto", "swap"])
def test_an_old_processor_has_ctranslate2(
    emulator: str, processor: str, how: str, miniature: Path
) -> None:
    swapped = {"PYTHONPATH": str(SITE), VARIABLE: "{}"} if how == "swap" else {}
    speech, options = (
        audio_file("command.flac"),
        {**OPTIONS, "max_new_tokens": 8, "without_timestamps": True},
    )
    arguments = ("-c", LOAD[how] + TRANSCRIBE, miniature, speech, json.dumps(options))
    result = python(*arguments, on=(emulator, "-cpu", processor), **swapped)
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("MAX cannot run on this processor") == 1
    assert result.stdout.split() == ["ctranslate2._ext", *stock_tokens(miniature, options)]


def test_a_transcription_with_avx2(emulator: str, miniature: Path) -> None:
    """That the processor has no AVX-512 is found out, though Linux lists the host's features."""
    code, speech = LOAD["ours"] + TRANSCRIBE, "command.flac"
    # The kernels are compiled by the machine itself, which is faster, and found in the cache.
    expected = reference_transcription("tiny.en", "command", **OPTIONS)
    tokens = [token for segment in expected.segments for token in segment.tokens]
    arguments = ("-c", code, model_directory("tiny.en"), audio_file(speech), json.dumps(OPTIONS))
    result = python(*arguments, WHISPER_MAX_CPU_TARGET="x86-64-v3")
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == [OURS, *map(str, tokens)]

    options = {**OPTIONS, "max_new_tokens": 8, "without_timestamps": True}
    arguments = ("-c", code, miniature, audio_file(speech), json.dumps(options))
    emulated = python(*arguments, on=(emulator, "-cpu", "Haswell"))
    assert emulated.returncode == 0, emulated.stderr
    assert emulated.stdout.split() == [OURS, *stock_tokens(miniature, options)]
