"""Language detection and recordings in several languages."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from compat_tests.support.compare import PROBABILITY, language_differences
from compat_tests.support.models import check, our_model, reference_model
from compat_tests.support.recordings import load
from whisper_max_backend.engine.cpu.model import CPUModel

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("beam_size", [5, 1])
def test_multilingual_recording(beam_size: int) -> None:
    """The language is detected anew for each window."""
    expected = check("base", "bilingual", multilingual=True, beam_size=beam_size)
    assert "Félicitations" in expected.text
    assert "Yes, exactly" in expected.text


def test_multilingual_with_vad_and_words() -> None:
    check(
        "base", "bilingual", multilingual=True, vad_filter=True, word_timestamps=True, beam_size=1
    )


@pytest.mark.parametrize(
    "options",
    [
        {"language_detection_segments": 2, "language_detection_threshold": 0.999},
        {"language": "fr"},
        {"language": "en"},
    ],
    ids=["two-windows", "given", "wrong"],
)
def test_language_options(options: dict) -> None:
    check("base", "french", beam_size=1, without_timestamps=True, **options)


@pytest.mark.parametrize("recording", ["french", "very_short", "music", "silence"])
def test_detect_language(recording: str) -> None:
    audio = load(recording)
    first, probability, everything = reference_model("base").detect_language(audio.copy())
    ours = our_model("base").detect_language(audio.copy())
    assert ours[0] == first
    assert ours[1] == pytest.approx(probability, abs=PROBABILITY)
    assert list(language_differences(everything, ours[2])) == []


def test_the_window_of_the_detection_is_not_encoded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it has all of its 30 s, it is the window that is transcribed first."""
    windows: list[bytes] = []
    encode = CPUModel.encode

    def noted(model: CPUModel, features: np.ndarray, *stop: Any) -> Any:
        windows.append(features.tobytes())
        return encode(model, features, *stop)

    monkeypatch.setattr(CPUModel, "encode", noted)
    check("base", "bilingual", beam_size=1)
    assert len(windows) >= 2
    assert len(windows) == len(set(windows)), "a window was encoded twice"


def test_detect_language_options() -> None:
    """VAD, and several windows that vote."""
    audio = load("bilingual")
    options = {
        "vad_filter": True,
        "language_detection_segments": 2,
        "language_detection_threshold": 1.0,
    }
    first, probability, everything = reference_model("base").detect_language(
        audio.copy(), **options
    )
    ours = our_model("base").detect_language(audio.copy(), **options)
    assert ours[0] == first
    assert ours[1] == pytest.approx(probability, abs=PROBABILITY)
    assert list(language_differences(everything, ours[2])) == []


def test_detect_language_from_features() -> None:
    features = reference_model("base").feature_extractor(load("russian"))
    first, probability, _ = reference_model("base").detect_language(features=features)
    ours = our_model("base").detect_language(features=features)
    assert ours[0] == first == "ru"
    assert ours[1] == pytest.approx(probability, abs=PROBABILITY)


def test_language_of_an_english_model() -> None:
    """An English-only model answers for English whatever it is told."""
    for model in (reference_model("tiny.en"), our_model("tiny.en")):
        _, info = model.transcribe(np.zeros(16_000, np.float32), language="fr", temperature=0.0)
        assert (info.language, info.language_probability) == ("en", 1)
        assert model.supported_languages == ["en"]
    assert our_model("base").supported_languages == reference_model("base").supported_languages
