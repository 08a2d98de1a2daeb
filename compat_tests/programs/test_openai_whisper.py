"""The backend "openai-whisper" with the real package, if WHISPER_MAX_TORCH_TESTS is set."""

from __future__ import annotations

import collections
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compat_tests.support.miniature_formats import OPENAI, split, torch_save
from compat_tests.support.models import model_directory
from compat_tests.support.programs.catalogue import Program
from compat_tests.support.programs.environment import make_environment
from compat_tests.support.recordings import audio_file, load, write_wav
from whisper_max_backend.engine.checkpoint.load import load_checkpoint

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif("WHISPER_MAX_TORCH_TESTS" not in os.environ, reason="needs PyTorch"),
]
REQUIREMENT = "openai-whisper==20250625"
ASK_WHISPER = """
import sys, wave, numpy, whisper
with wave.open(sys.argv[2]) as file:
    samples = numpy.frombuffer(file.readframes(file.getnframes()), numpy.int16) / 32768
model = whisper.load_model(sys.argv[1], "cpu")
heard = model.transcribe(
    samples.astype(numpy.float32), language="en", beam_size=5, temperature=0.0, fp16=False
)
print(heard["text"])
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_environment(tmp_path_factory.mktemp("openai"), [Program(REQUIREMENT, {})])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tiny.en as OpenAI publishes it, with the tokenizer that faster-whisper wants beside it."""
    source = model_directory("tiny.en")
    folder = tmp_path_factory.mktemp("checkpoint")
    loaded = load_checkpoint(source)
    state = split(loaded.weights, OPENAI)
    saved = {
        "dims": vars(loaded.dimensions),
        "model_state_dict": collections.OrderedDict(
            (name, np.ascontiguousarray(value, np.float16)) for name, value in state.items()
        ),
    }
    path = folder / "tiny.en.pt"
    with pytest.MonkeyPatch.context() as patch:
        path.write_bytes(torch_save(patch, saved, "HalfStorage"))
    shutil.copy(source / "tokenizer.json", folder)
    return path


def heard(python: Path, backend: str, model: Path, folder: Path) -> Any:
    """What `whisper-max transcribe` writes."""
    options = {
        **{"--backend": backend, "--model": str(model), "--compute-type": "float32"},
        **{"--output-format": "json", "--output-dir": str(folder / backend)},
    }
    flags = ["--word-timestamps", "--device", "cpu", "--temperature", "0"]
    words = [word for option in options.items() for word in option]
    command = [str(python), "-m", "whisper_max_backend", "transcribe", str(audio_file("jfk.flac"))]
    subprocess.run([*command, *words, *flags], check=True, timeout=600)
    return json.loads((folder / backend / "jfk.json").read_text())


@pytest.mark.parametrize("name", ["tiny.en", "base", "checkpoint"])
def test_it_hears_what_the_engine_hears(
    python: Path, checkpoint: Path, name: str, tmp_path: Path
) -> None:
    """The same weights from a CTranslate2 directory or a .pt file: tokens and word times."""
    model = checkpoint if name == "checkpoint" else model_directory(name)
    theirs = heard(python, "openai-whisper", model, tmp_path)
    ours = heard(python, "max", model, tmp_path)
    assert "ask not what your country" in ours["text"]
    assert theirs["text"] == ours["text"]
    for expected, actual in zip(theirs["segments"], ours["segments"], strict=True):
        assert actual["tokens"] == expected["tokens"]
        assert actual["avg_logprob"] == pytest.approx(expected["avg_logprob"], abs=1e-3)
        for a, b in zip(expected["words"], actual["words"], strict=True):
            assert (a["word"], a["start"], a["end"]) == (b["word"], b["start"], b["end"])


def test_the_package_itself_agrees(python: Path, checkpoint: Path, tmp_path: Path) -> None:
    """openai-whisper reads the .pt file by its own means."""
    audio = tmp_path / "speech.wav"
    write_wav(audio, load("jfk"))
    command = [str(python), "-c", ASK_WHISPER, str(checkpoint), str(audio)]
    printed = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, timeout=600
    ).stdout
    assert printed.strip() == heard(python, "openai-whisper", checkpoint, tmp_path)["text"].strip()
