"""One miniature model, loaded by the reference and by an engine of this package."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from typing import Any

import ctranslate2
import numpy as np
import pytest

from compat_tests.support.gpu_engine import GPUGraphsWhisper
from compat_tests.support.miniature import (
    ARCHITECTURES,
    Architecture,
    make_model,
    vocabulary_tokens,
)
from compat_tests.support.models import engine_class
from compat_tests.support.numpy_runtime import storage

PROBABILITY = 1e-4
MAX_LENGTH = 48  # a random model seldom ends by itself


ALL_GPU_GRAPHS = "WHISPER_MAX_ALL_DEVICE_GRAPHS"
"""1 tests the GPU's graphs on every architecture. Each is compiled for itself: a minute or more."""


@dataclasses.dataclass(frozen=True)
class EngineCase:
    """An engine, a miniature, and how its file and its weights are kept."""

    architecture: str
    engine: Callable[..., Any]
    quantization: str | None = None
    compute_type: str = "float32"


def engine_cases() -> Iterator[tuple[str, EngineCase]]:
    """All that are held against the reference, by name."""
    for name in ARCHITECTURES:
        yield f"cpu-{name}", EngineCase(name, engine_class())
    for name in ARCHITECTURES if os.environ.get(ALL_GPU_GRAPHS) else ("one-head",):
        yield f"gpu-{name}", EngineCase(name, GPUGraphsWhisper)
    # Only the weights are rounded, so what they are is all that int8 changes: the reference
    # computes in float32 over the same rounded weights.
    int8 = EngineCase(
        "one-head", GPUGraphsWhisper, quantization="int8", compute_type="int8_float32"
    )
    yield "gpu-one-head-int8", int8


@dataclasses.dataclass(frozen=True)
class Engines:
    """One miniature model, loaded by both."""

    case: EngineCase
    path: str
    architecture: Architecture
    tokens: dict[str, int]
    reference: Any
    ours: Any

    def features(self, batch: int = 1, frames: int | None = None, seed: int = 0) -> np.ndarray:
        """Log-mel features as audio has them, roughly: float32 [batch, n_mels, frames]."""
        random = np.random.default_rng(seed)
        frames = frames or 2 * self.architecture.n_audio_ctx
        shape = (batch, self.architecture.n_mels, frames)
        slow = np.cumsum(random.normal(0, 0.2, shape), axis=2)
        return (0.5 * np.sin(slow) + random.normal(0, 0.3, shape)).astype(np.float32)

    def prompt(self, *, timestamps: bool = True, task: str = "transcribe") -> list[int]:
        names = ["<|startoftranscript|>"]
        if self.reference.is_multilingual:
            names += ["<|fr|>", f"<|{task}|>"]
        names += [] if timestamps else ["<|notimestamps|>"]
        return [self.tokens[name] for name in names]

    def words(self, count: int, seed: int = 0) -> list[int]:
        """Random text tokens."""
        text = self.tokens["<|endoftext|>"]
        return [int(i) for i in np.random.default_rng(seed).integers(0, text - 1, count)]

    def generate(self, prompts: list[list[int]], seed: int = 0, **options: Any) -> list[Any]:
        """Both answers to one request, features given: [reference's, ours]."""
        features = self.features(len(prompts), seed=seed)
        options = {
            "max_length": MAX_LENGTH,
            "return_scores": True,
            "return_no_speech_prob": True,
            **options,
        }
        return [
            self.reference.generate(storage(features), prompts, **options),
            self.ours.generate(storage(features), prompts, **options),
        ]


def make_engines(case: EngineCase, tmp_path_factory: pytest.TempPathFactory) -> Engines:
    """The miniature, loaded by the reference and by the engine.

    The reference computes in float32 with the numbers of the file, whatever the engine does.
    """
    name = case.architecture
    path = str(make_model(tmp_path_factory.mktemp(name), name, quantization=case.quantization))
    tokens = {token: i for i, token in enumerate(vocabulary_tokens(ARCHITECTURES[name]))}
    # Models as small as these only lose by a second thread.
    reference = ctranslate2.models.Whisper(path, compute_type="float32", intra_threads=1)
    ours = case.engine(path, compute_type=case.compute_type)
    return Engines(case, path, ARCHITECTURES[name], tokens, reference, ours)


def relative_error(expected: np.ndarray, actual: np.ndarray) -> float:
    """Largest difference over the largest value; infinite where one is not a number."""
    assert expected.shape == actual.shape
    difference = np.abs(np.asarray(expected, np.float64) - actual)
    if not np.isfinite(difference).all():
        return float("inf")
    return float(difference.max() / np.abs(expected).max())


def assert_same_results(expected: list[Any], actual: list[Any]) -> None:
    assert len(actual) == len(expected)
    for item, (one, other) in enumerate(zip(expected, actual, strict=True)):
        assert other.sequences_ids == one.sequences_ids, f"item {item}"
        assert other.sequences == one.sequences, f"item {item}"
        assert other.scores == pytest.approx(one.scores, rel=1e-4, abs=1e-4)
        assert other.no_speech_prob == pytest.approx(one.no_speech_prob, abs=PROBABILITY)
