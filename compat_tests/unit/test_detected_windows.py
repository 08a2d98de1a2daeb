"""A window whose language was detected is encoded once; no other takes its place.

The engine computes in numpy, and counts what it encodes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compat_tests.support.miniature import ARCHITECTURES, make_model
from compat_tests.support.numpy_runtime import NumpyWhisper, random_features
from whisper_max_backend.engine.serving.detected_windows import MOST

SHAPE = (1, ARCHITECTURES["one-head"].n_mels, 60)


class CountingWhisper(NumpyWhisper):
    """The engine, with the number of windows that it has encoded."""

    encoded = 0

    def _load_device_model(self, checkpoint: Any, device_index: int) -> Any:
        model = super()._load_device_model(checkpoint, device_index)
        encode = model.encode

        def counted(features: np.ndarray, *stop: Any) -> np.ndarray:
            self.encoded += len(features)
            return np.asarray(encode(features, *stop))

        model.encode = counted
        return model


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("one-head"), "one-head")


@pytest.fixture
def model(directory: Path) -> CountingWhisper:
    return CountingWhisper(str(directory), compute_type="float32")


def test_it_is_encoded_once(model: CountingWhisper) -> None:
    features = random_features(SHAPE)
    first = model.encode(features)
    model.detect_language(first)
    second = model.encode(features.copy())
    assert model.encoded == 1
    np.testing.assert_array_equal(np.array(second), np.array(first))
    model.encode(features)  # a third time nobody is expected
    assert model.encoded == 2


def test_features_that_have_changed_are_encoded(model: CountingWhisper) -> None:
    features = random_features(SHAPE)
    model.detect_language(model.encode(features))
    features[0, 3, 5] += 1
    changed = np.array(model.encode(features))
    assert model.encoded == 2
    features[0, 3, 5] -= 1
    assert np.abs(changed - np.array(model.encode(features))).max() > 1e-4


@pytest.mark.parametrize("other", [(1, SHAPE[1], 58), (2, SHAPE[1], 60)])
def test_other_windows_are_encoded(model: CountingWhisper, other: tuple[int, ...]) -> None:
    model.detect_language(model.encode(random_features(SHAPE)))
    output = model.encode(random_features(other))
    assert model.encoded == 1 + other[0]
    assert output.shape[:2] == [other[0], (other[2] + 1) // 2]


def test_without_a_detection_nothing_is_kept(model: CountingWhisper) -> None:
    for _ in range(2):
        model.encode(random_features(SHAPE))
    model.detect_language(random_features(SHAPE))
    model.encode(random_features(SHAPE))
    assert model.encoded == 4


def test_some_are_kept_for_others_at_the_same_time(model: CountingWhisper) -> None:
    windows = [random_features(SHAPE, seed) for seed in range(MOST + 1)]
    for window in windows:
        model.detect_language(model.encode(window))
    for window in reversed(windows):
        model.encode(window)
    assert model.encoded == MOST + 2  # the oldest had to make room
