"""What the encoder sees of a live stream."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from whisper_max_backend.live.local_agreement import _with_window
from whisper_max_backend.live.samples import RATE
from whisper_max_backend.live.window import FRAME_SECONDS, most_tokens, window_frames


@pytest.mark.parametrize(("seconds", "window"), [(0, 15), (10, 15), (12, 17), (25, 30), (29, 30)])
def test_a_window_has_silence_behind_the_audio(seconds: int, window: int) -> None:
    assert window_frames(seconds * RATE) * FRAME_SECONDS == pytest.approx(window)


def test_text_is_bounded_by_the_audio() -> None:
    assert most_tokens(10 * RATE) == 128
    assert most_tokens(0) == 8


def test_local_agreement_shows_the_encoder_silence_behind_the_audio() -> None:
    seen: list[np.ndarray] = []
    model: Any = SimpleNamespace(model=SimpleNamespace(follow=None), encode=seen.append)
    features = np.zeros((80, 3000), np.float32)  # as the reference fills a window up
    features[:, :400] = np.random.default_rng(0).normal(0, 1, (80, 400))
    before = features.copy()
    _with_window(model, 4 * RATE).encode(features)
    np.testing.assert_array_equal(features, before)
    (window,) = seen
    assert window.shape == (80, 1500)
    np.testing.assert_array_equal(window[:, :400], before[:, :400])
    assert (window[:, 400:] == before.min()).all()


def test_other_models_see_what_they_see() -> None:
    model = SimpleNamespace(model=SimpleNamespace())
    assert _with_window(model, RATE) is model


def test_long_audio_is_shown_as_the_reference_shows_it() -> None:
    model = SimpleNamespace(model=SimpleNamespace(follow=None))
    assert _with_window(model, 29 * RATE) is model
