"""Models of Whisper's sizes with random weights: the time does not depend on the values."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from ctranslate2.specs import model_spec, whisper_spec
from max.dtype import DType

from benchmarks.operations import step_bytes
from compat_tests.support.miniature import Architecture, vocabulary_tokens
from whisper_max_backend.engine.checkpoint.dimensions import PUBLISHED, Dimensions, expected_shapes
from whisper_max_backend.engine.checkpoint.load import Checkpoint
from whisper_max_backend.engine.checkpoint.vocabulary import Vocabulary
from whisper_max_backend.engine.checkpoint.weight_dtypes import gpu_types
from whisper_max_backend.engine.gpu.graphs.weight_specs import decoder_weights
from whisper_max_backend.engine.gpu.weights import quantized

SIZES = {
    "miniature": Dimensions(80, 100, 128, 2, 2, 2100, 448, 128, 2, 2),
    **{name: PUBLISHED[name] for name in ("base", "large-v3", "large-v3-turbo")},
}
"""Dimensions under openai-whisper's names; the miniature is for a run on a CPU."""

_BLOCK = 1 << 20


class _Random(Mapping[str, np.ndarray]):
    """Weights made when they are asked for: each repeats one block of random numbers."""

    def __init__(self, dimensions: Dimensions) -> None:
        self.shapes = expected_shapes(dimensions)
        self.block = np.random.default_rng(0).normal(0, 1, _BLOCK).astype(np.float32)

    def __getitem__(self, name: str) -> np.ndarray:
        shape = self.shapes[name]
        if name.endswith("gamma"):
            return np.ones(shape, np.float32)
        size = int(np.prod(shape))
        scale = 1 / np.sqrt(np.prod(shape[1:])) if name.endswith("/weight") else 0.1
        return (np.resize(self.block, size) * np.float32(scale)).reshape(shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)


def random_model(dimensions: Dimensions) -> Checkpoint:
    """A model of random weights, with a vocabulary of the right size."""
    tokens = vocabulary_tokens(Architecture(n_languages=99))
    filler = [f"[{index}]" for index in range(dimensions.n_vocab - len(tokens))]
    return Checkpoint(dimensions, _Random(dimensions), Vocabulary(filler + tokens), {}, "float16")


def prompt_of(vocabulary: Vocabulary) -> list[int]:
    """The start of a transcript in the first language, without timestamps."""
    return [vocabulary.sot, vocabulary.sot + 1, vocabulary.no_timestamps]


def int8_model(d: Dimensions) -> Checkpoint:
    """The same with the decoder's matrices in int8, and their scales as a file has them."""
    model = random_model(d)
    weights = dict(model.weights)
    for weight in decoder_weights(d):
        if weight.matrix:
            values, scales = quantized(model, weight)
            weights |= {weight.name: values, f"{weight.name}_scale": 1 / scales}
    return dataclasses.replace(model, weights=weights, dtype="int8_float16")


def random_features(d: Dimensions, windows: int) -> np.ndarray:
    """Features in the range of log-mel spectrograms, float32 ``[windows, n_mels, frames]``."""
    shape = (windows, d.n_mels, 2 * d.n_audio_ctx)
    return np.random.default_rng().uniform(-1, 1, shape).astype(np.float32)


def save_model(checkpoint: Checkpoint, folder: Path) -> None:
    """Writes a model for CTranslate2, in float16."""
    d, vocabulary = checkpoint.dimensions, checkpoint.vocabulary
    spec = whisper_spec.WhisperSpec(d.n_audio_layer, d.n_audio_head, d.n_text_layer, d.n_text_head)
    names = {name: name for name in checkpoint.weights}
    names["decoder/projection/weight"] = "decoder/embeddings/weight"
    for name, source in names.items():
        scope, attribute = name.rsplit("/", 1)
        values = checkpoint.weights[source].astype(np.float16)
        setattr(model_spec.index_spec(spec, scope), attribute, values)
    spec.register_vocabulary([vocabulary.to_token(i) for i in range(vocabulary.size)])
    spec.validate()
    spec.optimize("float16")
    spec.save(str(folder))


def device_step_bytes(d: Dimensions, compute_type: str) -> float:
    """Bytes that a decoder step must read on a GPU: `step_bytes`, and the scales of int8."""
    dtype, kept = gpu_types(compute_type)
    scales = d.n_text_layer * 11 * d.n_text_state + d.n_vocab if kept == DType.int8 else 0
    return step_bytes(d, kept.size_in_bytes, dtype.size_in_bytes) + 4 * scales
