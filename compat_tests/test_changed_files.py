"""A model goes on as it was when its files change after it was loaded."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from compat_tests.support.miniature import ARCHITECTURES, make_model
from compat_tests.support.miniature_formats import make_hugging_face, make_openai

pytestmark = pytest.mark.slow

ARCHITECTURE = ARCHITECTURES["one-head"]

# A truncated file ends a process that reads its mapping, so another one does it.
PROGRAM = """
import json, os, sys
import numpy as np
from whisper_max_backend.engine.whisper import Whisper

directory, path = sys.argv[1:]
model = Whisper(directory, compute_type="float32")
features = np.random.default_rng(0).uniform(-1, 1, (1, 80, 200)).astype(np.float32)

def answer():
    encoded = np.asarray(model.encode(features))
    tokens = model.generate(features, [["<|startoftranscript|>"]], beam_size=1)[0].sequences_ids
    return encoded.tobytes(), tokens

answers = [answer()]
with open(path, "r+b") as file:
    file.write(bytes(os.path.getsize(path)))
answers.append(answer())
os.truncate(path, 0)
answers.append(answer())
print(json.dumps([given == answers[0] for given in answers]))
"""

READING = """
import json, os, sys
from whisper_max_backend.engine.checkpoint.load import load_checkpoint

directory, path = sys.argv[1:]
expected = {name: values.tobytes() for name, values in load_checkpoint(directory).weights.items()}
kept = load_checkpoint(directory).in_memory()
os.truncate(path, 0)
print(json.dumps([values.tobytes() == expected[name] for name, values in kept.weights.items()]))
"""


def make(kind: str, directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A float32 model of this kind; gives the file of its weights."""
    if kind == "safetensors":
        return make_hugging_face(directory, ARCHITECTURE) / "model.safetensors"
    if kind == "pt":
        return make_openai(directory, monkeypatch, ARCHITECTURE) / "tiny.pt"
    return make_model(directory, "one-head") / "model.bin"


def run(program: str, path: Path) -> list[bool]:
    done = subprocess.run(
        [sys.executable, "-c", program, str(path.parent), str(path)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, (done.returncode, done.stderr)
    result: list[bool] = json.loads(done.stdout)
    return result


@pytest.mark.parametrize("kind", ["safetensors", "pt", "ctranslate2"])
def test_a_loaded_model_reads_no_file(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(kind, tmp_path / "model", monkeypatch)
    assert run(PROGRAM, path) == [True, True, True]


@pytest.mark.parametrize("kind", ["safetensors", "pt", "ctranslate2"])
def test_a_checkpoint_in_memory_reads_no_file(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `unload_model(to_cpu=True)` keeps of a model on a GPU."""
    path = make(kind, tmp_path / "model", monkeypatch)
    assert all(run(READING, path))
