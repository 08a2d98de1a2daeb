"""The Silero model in two parts has the numbers of the whole one, and another stays whole."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from faster_whisper import vad
from faster_whisper.utils import get_assets_path
from hypothesis import given
from hypothesis import strategies as st

from compat_tests.support.recordings import load
from whisper_max_backend import silero, speech

WHOLE = Path(get_assets_path(), "silero_vad_v6.onnx").read_bytes()


@pytest.fixture
def model_read_anew() -> Iterator[None]:
    silero.silero.cache_clear()
    yield
    silero.silero.cache_clear()


@pytest.mark.usefixtures("model_read_anew")
@pytest.mark.parametrize("content", [WHOLE[:-100], WHOLE.replace(b"LSTM", b"LSTN"), b""])
def test_another_model_stays_whole(
    content: bytes,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "silero_vad_v6.onnx").write_bytes(content)
    monkeypatch.setattr(silero, "get_assets_path", lambda: os.fspath(tmp_path))
    samples = load("jfk")
    expected = vad.get_vad_model()(np.pad(samples, (0, -len(samples) % speech.FRAME))).ravel()
    for _ in range(2):
        found = speech.speech_probabilities(samples)
    np.testing.assert_array_equal(found[: len(expected)], expected)
    (record,) = caplog.records  # told once
    assert "by one thread" in record.getMessage()


@given(st.data())
def test_only_models_are_taken_apart(data: st.DataObject) -> None:
    """Whatever the bytes are, they are refused or make two messages; nothing else is raised."""
    place = data.draw(st.integers(0, len(WHOLE)))
    written = data.draw(st.binary(max_size=20))
    cut = data.draw(st.integers(place, min(len(WHOLE), place + 50)))
    try:
        parts = silero.split(WHOLE[:place] + written + WHOLE[cut:])
    except ValueError:
        return
    assert all(list(silero._fields(part)) for part in parts[:2])
