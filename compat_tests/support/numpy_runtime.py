"""The engine over numpy: its requests can be compared with the reference's without MAX.

The reference encodes and aligns, so what is compared is what lies between: arguments, prompts,
rules, searches and results.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
import numpy.typing as npt

from compat_tests.support.numpy_decoder import NumpyDecoder, NumpyState
from whisper_max_backend.engine.checkpoint.load import Checkpoint, dense
from whisper_max_backend.engine.search.rules import FixedRules
from whisper_max_backend.engine.state.alignment_request import AlignmentRequest, Alignments
from whisper_max_backend.engine.whisper import Whisper
from whisper_max_backend.system.cancellation import NEVER, StopFlag

Array = npt.NDArray[Any]


class RequestNumpyDecoder(NumpyDecoder):
    """The numpy decoder with all that the engine asks of one."""

    def __init__(self, checkpoint: Checkpoint, reference: ctranslate2.models.Whisper) -> None:
        weights = {name: dense(checkpoint.weights, name) for name in checkpoint.weights}
        weights.setdefault("decoder/projection/weight", weights["decoder/embeddings/weight"])
        weights["decoder/num_heads"] = np.array(checkpoint.dimensions.n_text_head)
        vocabulary = checkpoint.vocabulary
        super().__init__(weights, vocabulary.eot, vocabulary.timestamp_begin)
        self.reference = reference

    def start(
        self,
        encoded: Array,
        rules: FixedRules,
        rows_per_item: int = 1,
        stop: StopFlag = NEVER,
    ) -> NumpyState:
        self.rows_per_item = rows_per_item
        assert rules.first_timestamp == self.first
        return super().start(encoded, rules)

    def language_probabilities(self, encoded: Array, sot: int, languages: Sequence[int]) -> Array:
        logits = self._forward(super().start(encoded, FixedRules()), np.full(len(encoded), sot))
        exponentials = np.exp(logits[:, languages] - logits[:, languages].max(1, keepdims=True))
        result: Array = exponentials / exponentials.sum(1, keepdims=True)
        return result

    def align(self, encoded: Array, request: AlignmentRequest) -> Alignments:
        start_length = request.start_length
        rows = [
            row[:length].tolist()
            for row, length in zip(request.tokens, request.lengths, strict=True)
        ]
        assert all(row[-1] == request.eot for row in rows)
        aligned = self.reference.align(
            ctranslate2.StorageView.from_array(encoded),
            rows[0][:start_length],
            [row[start_length + 1 : -1] for row in rows],
            (2 * request.frames).tolist(),
            median_filter_width=request.median_filter_width,
        )
        probabilities = np.zeros(request.tokens.shape, np.float32)
        for row, result in zip(probabilities, aligned, strict=True):
            row[start_length : start_length + len(result.text_token_probs)] = (
                result.text_token_probs
            )
        return Alignments([result.alignments for result in aligned], probabilities)


class NumpyModel:
    """A model directory in numpy, encoded by the reference."""

    log_mel = None

    def __init__(self, path: str, checkpoint: Checkpoint) -> None:
        self.reference = ctranslate2.models.Whisper(path, compute_type="float32")
        self.dimensions = checkpoint.dimensions
        self.decoder = RequestNumpyDecoder(checkpoint, self.reference)

    def encode(self, features: Array, stop: StopFlag = NEVER) -> Array:
        return np.array(self.reference.encode(storage(features.copy())))  # it refuses read-only

    def to_device(self, array: Array) -> Array:
        return array


class NumpyWhisper(Whisper):
    """The engine, with its model in numpy."""

    def _load_device_model(self, checkpoint: Checkpoint, device_index: int) -> Any:
        return NumpyModel(self._path, checkpoint)


def random_features(shape: Sequence[int], seed: int = 0) -> npt.NDArray[np.float32]:
    """Features in the range of log-mel spectrograms."""
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def storage(array: Array) -> ctranslate2.StorageView:
    """An array as the reference takes it."""
    return ctranslate2.StorageView.from_array(np.asarray(array, order="C"))


def both(directory: Path, **options: Any) -> tuple[Whisper, ctranslate2.models.Whisper]:
    """Our engine in numpy and the reference on the same model."""
    options = {"compute_type": "float32", **options}
    reference = ctranslate2.models.Whisper(str(directory), **options)
    return NumpyWhisper(str(directory), **options), reference
