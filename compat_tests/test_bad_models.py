"""Bad models, end to end: the exception type of the reference, and a message that helps."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import ctranslate2
import faster_whisper
import numpy as np
import pytest

from compat_tests.support.errors import same_error
from compat_tests.support.miniature import make_model
from compat_tests.support.models import engine_class, subject
from whisper_max_backend.engine.api.compute_types import kernels


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A miniature with the 30 s windows that `transcribe` always makes."""
    return make_model(tmp_path_factory.mktemp("miniature"), "deep-encoder")


def load_both(path: Path, *words: str, **options: Any) -> None:
    """Loading fails alike."""
    options = {"device": "cpu", "compute_type": "float32", **options}
    same_error(
        lambda: faster_whisper.WhisperModel(str(path), **options),
        lambda: subject().WhisperModel(str(path), **options),
        *words,
    )


def _copy(directory: Path, target: Path) -> Path:
    return Path(shutil.copytree(directory, target / "model"))


@pytest.mark.parametrize("missing", ["model.bin", "vocabulary.json"])
def test_incomplete_directory(directory: Path, tmp_path: Path, missing: str) -> None:
    path = _copy(directory, tmp_path)
    (path / missing).unlink()
    load_both(path, missing.split(".")[0])


def test_unknown_model_name() -> None:
    same_error(
        lambda: faster_whisper.WhisperModel("no-such-model"),
        lambda: subject().WhisperModel("no-such-model"),
        "no-such-model",
    )


@pytest.mark.parametrize("kept", [0, 3, 30, 1000, 0.5, 0.99999])
def test_truncated_model(directory: Path, tmp_path: Path, kept: float) -> None:
    path = _copy(directory, tmp_path)
    content = (path / "model.bin").read_bytes()
    length = kept if isinstance(kept, int) else int(kept * len(content))
    (path / "model.bin").write_bytes(content[:length])
    load_both(path, "model.bin")


def test_corrupted_model(directory: Path, tmp_path: Path) -> None:
    path = _copy(directory, tmp_path)
    (path / "model.bin").write_bytes(np.random.default_rng(0).bytes(5000))
    load_both(path, "version")


def test_model_of_another_kind(directory: Path, tmp_path: Path) -> None:
    path = _copy(directory, tmp_path)
    content = (path / "model.bin").read_bytes()
    (path / "model.bin").write_bytes(content.replace(b"WhisperSpec", b"TextualSpec", 1))
    load_both(path, "TextualSpec")


def test_damaged_config(directory: Path, tmp_path: Path) -> None:
    path = _copy(directory, tmp_path)
    (path / "config.json").write_text('{"suppress_ids": [')
    load_both(path, "config.json")


def test_heads_that_do_not_fit_the_weights(directory: Path, tmp_path: Path) -> None:
    """Alignment heads of a deeper model: the reference writes out of bounds, so it is not asked."""
    path = _copy(directory, tmp_path)
    text = (path / "config.json").read_text()
    assert '"alignment_heads"' in text
    (path / "config.json").write_text(
        text.replace('"alignment_heads"', '"alignment_heads": [[99, 0]], "unused"')
    )

    with pytest.raises(RuntimeError, match=r"config.json.*'alignment_heads'.*\[99, 0\]"):
        engine_class()(str(path), compute_type="float32")


def test_vocabulary_larger_than_the_weights(directory: Path, tmp_path: Path) -> None:
    """Of a model with a language more; the reference reads it and goes wrong later."""
    path = _copy(directory, tmp_path)
    other = make_model(tmp_path / "other", "v3")
    shutil.copy(other / "vocabulary.json", path)
    with pytest.raises(RuntimeError, match="vocabulary"):
        subject().WhisperModel(str(path), device="cpu", compute_type="float32")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"compute_type": "float8"}, "float8"),
        ({"device": "tpu"}, "tpu"),
        ({"device_index": 3}, "3"),
    ],
    ids=["compute-type", "device", "device-index"],
)
def test_unsupported(directory: Path, options: dict[str, Any], word: str) -> None:
    load_both(directory, word, **options)


@pytest.mark.parametrize("compute_type", ["float16", "bfloat16"])
def test_compute_type_that_this_machine_lacks(directory: Path, compute_type: str) -> None:
    """What the reference refuses on this machine is refused alike, if no kernel of ours has it."""
    if compute_type in ctranslate2.get_supported_compute_types("cpu") | kernels("cpu"):
        model = subject().WhisperModel(str(directory), device="cpu", compute_type=compute_type)
        assert model.model.compute_type == compute_type
    else:
        load_both(directory, compute_type, compute_type=compute_type)
