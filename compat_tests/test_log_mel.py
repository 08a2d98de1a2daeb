"""Log-mel features against the reference's NumPy code, and against float64."""

from __future__ import annotations

import logging
import threading
from typing import Any

import numpy as np
import pytest
from faster_whisper.feature_extractor import FeatureExtractor as Reference

from whisper_max_backend import feature_extractor
from whisper_max_backend.feature_extractor import FeatureExtractor

TOLERANCE = 1e-4
RATE = 16000


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(samples) * 0.1).astype(np.float32)


def tone(samples: int, frequency: float) -> np.ndarray:
    return np.sin(2 * np.pi * frequency / RATE * np.arange(samples)).astype(np.float32)


def voice(samples: int) -> np.ndarray:
    """Something like speech: harmonics of a gliding pitch, syllables, pauses, a quiet room."""
    time = np.arange(samples) / RATE
    phase = 2 * np.pi * np.cumsum(120 + 30 * np.sin(2 * np.pi * 0.7 * time)) / RATE
    harmonics = sum(np.sin(k * phase) / k**1.5 for k in range(1, 40))
    syllables = np.clip(np.sin(2 * np.pi * 3 * time), 0, None) * (np.sin(time) > -0.5)
    return (0.2 * harmonics * syllables + 1e-4 * noise(samples)).astype(np.float32)


def float64_log_mel(waveform: np.ndarray, filters: np.ndarray, padding: int = 160) -> np.ndarray:
    """The same features, every step in float64."""
    padded = np.pad(np.pad(waveform.astype(np.float64), (0, padding)), (200, 200), mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, 400)[::160][:-1]
    power = np.abs(np.fft.rfft(frames * np.hanning(401)[:-1])) ** 2
    log = np.log10(np.maximum(filters.astype(np.float64) @ power.T, 1e-10))
    return (np.maximum(log, log.max() - 8) + 4) / 4


def assert_same(waveform: np.ndarray, n_mels: int = 80, **options: Any) -> None:
    expected = Reference(n_mels)(waveform, **options)
    features = FeatureExtractor(n_mels)(waveform, **options)
    assert features.shape == expected.shape
    assert features.dtype == expected.dtype
    assert features.flags.c_contiguous
    assert features.flags.writeable
    np.testing.assert_allclose(features, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("n_mels", [80, 128, 1, 40])
@pytest.mark.parametrize("make", [noise, voice, np.zeros, np.ones])
def test_signals(make, n_mels: int) -> None:
    assert_same(make(3 * RATE).astype(np.float32), n_mels)


@pytest.mark.parametrize("frequency", [0.0, 31.25, 440.0, 1000.0, 3999.0, 7999.0, 8000.0])
def test_tones(frequency: float) -> None:
    assert_same(tone(2 * RATE, frequency) + 0.25)


@pytest.mark.parametrize(
    "samples",
    [0, 1, 2, 3, 39, 40, 41, 159, 160, 161, 199, 200, 201, 239, 240, 241, 319, 320, 399, 400, 401]
    + [160 * frames + extra for frames in (15, 16, 17, 127, 128, 129) for extra in (-1, 0, 1)],
)
@pytest.mark.parametrize("padding", [160, 1, 500])
def test_lengths(samples: int, padding: int) -> None:
    waveform = noise(samples)
    if samples + padding < 160:
        with pytest.raises(ValueError, match="zero-size array"):
            FeatureExtractor()(waveform, padding=padding)
    else:
        assert_same(waveform, padding=padding)


@pytest.mark.parametrize("padding", [0, None, False])
def test_no_padding(padding: int | None) -> None:
    for samples in (160, 201, 480, 16001):
        assert_same(noise(samples), padding=padding)


@pytest.mark.parametrize(
    ("waveform", "options"),
    [
        (np.zeros(0, np.float32), {"padding": 0}),
        (np.zeros(100, np.float32), {"padding": 0}),
        (np.zeros((0, 1600), np.float32), {"padding": 0}),
        (np.zeros((2, 0), np.float32), {"padding": 0}),
        (np.zeros((2, 2, 1600), np.float32), {}),
        (np.float32(1.0), {}),
        (np.zeros(1600, np.float32), {"padding": -1}),
        (np.zeros(1600, np.float32), {"padding": 1.5}),
        ([0.0] * 1600, {}),
    ],
)
def test_same_errors(waveform: Any, options: dict[str, Any]) -> None:
    errors = (ValueError, TypeError, AttributeError)
    with pytest.raises(errors) as expected:
        Reference()(waveform, **options)
    with pytest.raises(expected.type) as raised:
        FeatureExtractor()(waveform, **options)
    assert str(raised.value) == str(expected.value)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int16, np.int32, bool])
def test_sample_types(dtype: type) -> None:
    assert_same((noise(RATE) * 1000).astype(dtype))


def test_views_and_read_only_samples() -> None:
    stereo = np.stack([noise(RATE), noise(RATE, 1)], axis=1)
    assert_same(stereo[:, 1])
    assert_same(noise(RATE)[::-1])
    frozen = noise(RATE)
    frozen.flags.writeable = False
    assert_same(frozen)


def test_items() -> None:
    waveform = np.stack([noise(4000), 10 * voice(4000), np.zeros(4000, np.float32)])
    assert_same(waveform, padding=0)
    assert_same(waveform)
    assert_same(waveform[:, :1600].astype(np.float64), padding=0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize("position", [0, 200, 8000, 15999])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_values_that_are_not_finite(value: float, position: int) -> None:
    waveform = noise(RATE)
    waveform[position] = value
    assert_same(waveform)


def test_chunk_length_changes_the_extractor() -> None:
    for chunk_length in (5, 30, 0, None):
        ours, reference = FeatureExtractor(128), Reference(128)
        ours(noise(1600), chunk_length=chunk_length)
        reference(noise(1600), chunk_length=chunk_length)
        filters, expected = ours.__dict__.pop("mel_filters"), reference.__dict__.pop("mel_filters")
        np.testing.assert_array_equal(filters, expected)
        assert ours.__dict__ == reference.__dict__


def test_other_transforms_fall_back(caplog: pytest.LogCaptureFixture) -> None:
    feature_extractor._tell_fallback.cache_clear()
    for options in ({"n_fft": 512}, {"hop_length": 80}, {"n_fft": 512}):
        expected = Reference(**options)(noise(RATE))
        np.testing.assert_array_equal(FeatureExtractor(**options)(noise(RATE)), expected)
    assert len([r for r in caplog.records if r.levelno == logging.WARNING]) == 2


def test_other_rate_and_changed_filters() -> None:
    ours, reference = FeatureExtractor(sampling_rate=8000), Reference(sampling_rate=8000)
    np.testing.assert_allclose(ours(noise(RATE)), reference(noise(RATE)), rtol=0, atol=TOLERANCE)
    ours.mel_filters = reference.mel_filters = np.asfortranarray(reference.mel_filters[::2])
    np.testing.assert_allclose(ours(noise(RATE)), reference(noise(RATE)), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("n_mels", [80, 128])
@pytest.mark.parametrize("make", [noise, voice])
def test_float64(make, n_mels: int) -> None:
    waveform = make(30 * RATE)
    ours = FeatureExtractor(n_mels)
    error = np.abs(ours(waveform) - float64_log_mel(waveform, ours.mel_filters)).max()
    assert error < TOLERANCE


@pytest.mark.parametrize("impulse", [0, 1, 57, 128, 200, 399, None])
def test_transform_alone(impulse: int | None) -> None:
    """With a filter for each bin, the features tell the power of every bin of every frame."""
    ours = FeatureExtractor()
    ours.mel_filters = np.eye(201, dtype=np.float32)
    waveform = noise(160 * 40) if impulse is None else 1e-3 * noise(160 * 40)
    if impulse is not None:
        waveform[1600 - 200 + impulse] += 1
    features = ours(waveform, padding=0).astype(np.float64)
    padded = np.pad(waveform.astype(np.float64), (200, 200), mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, 400)[::160][:-1]
    spectrum = np.abs(np.fft.rfft(frames * np.hanning(401)[:-1])).T
    found = np.sqrt(10 ** (4 * features - 4))
    heard = spectrum > 1.1e-4 * spectrum.max()  # the rest is clamped
    assert np.abs(found - spectrum)[heard].max() < 2e-6 * spectrum.max()


def test_long_audio_in_parts_is_the_same() -> None:
    """Frames do not depend on how the work is divided: an hour equals its repeated minute."""
    minute = voice(60 * RATE)
    hour = FeatureExtractor()(np.tile(minute, 60))
    assert hour.shape == (80, 60 * 6000 + 1)
    first = hour[:, 2:5998]
    for part in range(1, 60):
        np.testing.assert_array_equal(hour[:, 6000 * part + 2 : 6000 * part + 5998], first)


def test_threads() -> None:
    ours = FeatureExtractor()
    waveforms = [noise(RATE * (1 + seed), seed) for seed in range(4)]
    expected = [ours(waveform) for waveform in waveforms]
    wrong: list[int] = []

    def work(index: int) -> None:
        for _ in range(10):
            if not np.array_equal(ours(waveforms[index]), expected[index]):
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
