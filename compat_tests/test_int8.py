"""int8: no further from float32 than the reference's int8 is."""

from __future__ import annotations

import re
from typing import Any

import ctranslate2
import faster_whisper
import numpy as np
import pytest

import whisper_max_backend
from compat_tests.support.models import model_directory
from compat_tests.support.recordings import load
from whisper_max_backend.feature_extractor import FeatureExtractor

pytestmark = pytest.mark.slow

SPEECH = ("jfk", "austen", "dialogue", "noisy", "french", "russian")


def windows() -> np.ndarray:
    """The first half minute of several recordings: float32 [n, 80, 3000]."""
    extract = FeatureExtractor()
    features = [extract(load(name))[:, :3000] for name in SPEECH]
    return np.stack([np.pad(f, ((0, 0), (0, 3000 - f.shape[1]))) for f in features])


@pytest.fixture(scope="module", params=["tiny.en", "base"])
def model(request: pytest.FixtureRequest) -> str:
    return str(model_directory(request.param))


@pytest.mark.parametrize("compute_type", ["int8", "auto", "int8_float32"])
def test_it_is_what_runs(model: str, compute_type: str) -> None:
    ours = whisper_max_backend.WhisperModel(model, device="cpu", compute_type=compute_type)
    reference = ctranslate2.models.Whisper(model, device="cpu", compute_type=compute_type)
    assert ours.model.compute_type == reference.compute_type == "int8_float32"


def test_encoder_is_closer_to_float32(model: str) -> None:
    """Relative error of every window's states, on average over the windows."""
    ours = whisper_max_backend.WhisperModel(model, device="cpu", compute_type="int8").model
    exact = ctranslate2.models.Whisper(model, device="cpu", compute_type="float32")
    rounded = ctranslate2.models.Whisper(model, device="cpu", compute_type="int8")
    errors: dict[str, list[float]] = {"ours": [], "reference": []}
    for window in windows():
        features = ctranslate2.StorageView.from_array(window[None])
        expected = np.array(exact.encode(features, to_cpu=True))
        for name, states in (
            ("ours", np.array(ours.encode(features))),
            ("reference", np.array(rounded.encode(features, to_cpu=True))),
        ):
            errors[name].append(np.linalg.norm(states - expected) / np.linalg.norm(expected))
    assert np.mean(errors["ours"]) <= np.mean(errors["reference"]), errors


@pytest.mark.parametrize("beam_size", [1, 5])
def test_clear_speech_has_the_words_of_float32(model: str, beam_size: int) -> None:
    def words(module: Any, compute_type: str) -> list[str]:
        loaded = module.WhisperModel(model, device="cpu", compute_type=compute_type)
        segments, _ = loaded.transcribe(
            load("jfk"), language="en", beam_size=beam_size, temperature=0.0
        )
        return re.findall(r"[\w']+", "".join(segment.text for segment in segments).lower())

    assert words(whisper_max_backend, "int8") == words(faster_whisper, "float32")
