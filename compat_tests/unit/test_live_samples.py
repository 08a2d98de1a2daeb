"""Pieces of a stream: shapes, types and rates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from compat_tests.support.randomness import rng
from whisper_max_backend.engine.search.follow import FollowedToken
from whisper_max_backend.live.align_att import _without_loop
from whisper_max_backend.live.local_agreement import _common
from whisper_max_backend.live.samples import RATE, Resampler


def tone(rate: int, seconds: float = 2.0) -> np.ndarray:
    """A tone of 440 Hz."""
    return np.sin(2 * np.pi * 440 * np.arange(int(rate * seconds)) / rate).astype(np.float32)


def in_pieces(samples: np.ndarray, rate: int) -> np.ndarray:
    """Pushed in pieces of any length."""
    resampler = Resampler()
    found, start = [], 0
    while start < samples.shape[-1]:
        length = int(rng().integers(1, rate // 3))
        found.append(resampler.push(samples[..., start : start + length], rate))
        start += length
    return np.concatenate([*found, resampler.rest()])


def test_at_the_models_rate_nothing_changes() -> None:
    samples = rng().uniform(-1, 1, RATE).astype(np.float32)
    np.testing.assert_array_equal(in_pieces(samples, RATE), samples)


@pytest.mark.parametrize("rate", [8_000, 11_025, 44_100, 48_000, 96_000])
def test_other_rates(rate: int) -> None:
    found = in_pieces(tone(rate), rate)
    assert abs(len(found) - 2 * RATE) < RATE / 50
    spectrum = np.abs(np.fft.rfft(found * np.hanning(len(found))))
    assert np.argmax(spectrum) * RATE / len(found) == pytest.approx(440, abs=2)


def test_the_rate_may_change() -> None:
    resampler = Resampler()
    pieces = [resampler.push(tone(rate, 1.0), rate) for rate in (48_000, 16_000, 8_000)]
    assert abs(sum(map(len, [*pieces, resampler.rest()])) - 3 * RATE) < RATE / 25


@pytest.mark.parametrize("rate", [RATE, 48_000])
def test_an_empty_piece(rate: int) -> None:
    resampler = Resampler()
    assert len(resampler.push(np.zeros(0, np.float32), rate)) == 0
    resampler.push(np.zeros(rate, np.float32), rate)
    assert len(resampler.push(np.zeros(0, np.float32), rate)) == 0


def test_channels_and_integers() -> None:
    left, right = rng().uniform(-1, 1, (2, 1000)).astype(np.float32)
    mean = Resampler().push(np.stack([left, right]), RATE)
    np.testing.assert_allclose(mean, (left + right) / 2, atol=1e-7)
    integers = np.array([0, 16384, -32768], np.int16)
    np.testing.assert_array_equal(Resampler().push(integers, RATE), [0, 0.5, -1])
    assert len(Resampler().push([], RATE)) == 0


@pytest.mark.parametrize(
    ("samples", "rate", "words"),
    [
        ([[[0.0]]], RATE, "shape"),
        (np.zeros((100, 2), np.float32), RATE, "channels, samples"),
        (np.zeros(10, np.int64), RATE, "int64.*floats"),
        ([0.0, float("nan")], RATE, "not numbers"),
        ([0.0, float("inf")], RATE, "not numbers"),
        ([0.0], 0, "0 Hz"),
        ([0.0], 10**7, "10000000 Hz"),
        ("speech", RATE, "shape"),
    ],
)
def test_what_is_no_audio(samples: Any, rate: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Resampler().push(samples, rate)


@pytest.mark.parametrize(
    ("ids", "kept"),
    [
        ([], 0),
        ([1, 2, 3, 4], 4),
        ([7, 7, 7], 3),
        ([7, 7, 7, 7, 7], 1),
        ([5, 1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3, 9], 4),
        ([1, 2, 1, 2, 1, 2, 3], 7),
    ],
)
def test_loops_are_cut(ids: list[int], kept: int) -> None:
    tokens = [FollowedToken(id_, frame, -0.1) for frame, id_ in enumerate(ids)]
    assert _without_loop(tokens) == tokens[:kept]


def test_agreement() -> None:
    assert _common([], ["a"]) == 0
    assert _common(["a", "b", "c"], ["a", "b", "d"]) == 2
    assert _common(["b"], ["a"]) == 0
    assert _common(["a", "b"], ["a", "b", "c"]) == 2
