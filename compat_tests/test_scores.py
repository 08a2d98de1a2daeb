"""How far scores and probabilities are from float64's, here and in the reference, in float32."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import ctranslate2
import numpy as np
import pytest

from compat_tests.support.float64_network import Network, log_softmax
from compat_tests.support.models import engine_class, model_directory
from compat_tests.support.numpy_decoder import NumpyDecoder
from compat_tests.support.recordings import load
from whisper_max_backend.engine.checkpoint.load import Checkpoint, dense, load_checkpoint
from whisper_max_backend.engine.search.rules import FixedRules, Timestamps, fixed_bans, make_rules
from whisper_max_backend.feature_extractor import FeatureExtractor

pytestmark = pytest.mark.slow

SCORE = 1e-5
WORD = 2e-5
NO_SPEECH = 5e-5  # relative
REFERENCE = 1e-4
"""What the reference's scores and word probabilities are too high at most."""


@dataclass(frozen=True)
class Case:
    """One window, encoded by both sides and in float64."""

    checkpoint: Checkpoint
    network: Network
    encoded: np.ndarray  # float64 [1, positions, state]
    sides: dict[str, tuple[Any, Any]]  # model, encoder output

    def prompt(self, timestamps: bool) -> list[int]:
        names = ["<|startoftranscript|>"]
        if self.checkpoint.vocabulary.is_multilingual:
            names += ["<|en|>", "<|transcribe|>"]
        names += [] if timestamps else ["<|notimestamps|>"]
        return [self.checkpoint.vocabulary.to_id(name) for name in names]

    def generate(self, timestamps: bool, beam_size: int) -> dict[str, Any]:
        """What each side says; the tokens agree."""
        results = {
            name: model.generate(
                encoded,
                [self.prompt(timestamps)],
                beam_size=beam_size,
                return_scores=True,
                return_no_speech_prob=True,
            )[0]
            for name, (model, encoded) in self.sides.items()
        }
        assert results["ours"].sequences_ids == results["reference"].sequences_ids
        return results

    def exact(self, prompt: list[int], ids: list[int], timestamps: bool) -> tuple[float, float]:
        """Score of a text that ended, and the probability of no speech, in float64."""
        vocabulary, config = self.checkpoint.vocabulary, self.checkpoint.config
        tokens = [*ids, vocabulary.eot]
        logits = self.network.decode(np.array([[*prompt, *ids]]), self.encoded)[0]
        start = prompt.index(vocabulary.sot)
        silence = float(np.exp(log_softmax(logits[start])[vocabulary.no_speech]))
        ends = vocabulary.eot, vocabulary.timestamp_begin, vocabulary.size
        rules = make_rules(
            suppress_begin=config["suppress_ids_begin"],
            timestamps=Timestamps(*ends, max_initial=50) if timestamps else None,
        )
        banned = fixed_bans(
            (-1,),
            config["suppress_ids"],
            vocabulary.size,
            vocabulary.no_timestamps if timestamps else None,
        )
        fixed = FixedRules(np.array(banned, np.int32))
        weights = {"decoder/embeddings/weight": logits.T, "decoder/num_heads": np.array(1)}
        decoder = NumpyDecoder(weights, *ends[:2])  # only its rules are needed here
        total = 0.0
        for step, token in enumerate(tokens):
            line = logits[[len(prompt) - 1 + step]]
            decoder.constrain(line, rules.constraints([tokens[:step]], [0]), fixed)
            total += float(log_softmax(line[0])[token])
        return total / len(ids), silence

    def exact_words(self, start: list[int], text: list[int]) -> np.ndarray:
        """Probability of each text token among all text tokens, in float64."""
        vocabulary = self.checkpoint.vocabulary
        row = np.array([[*start, vocabulary.no_timestamps, *text]])
        logits = self.network.decode(row, self.encoded)[0, len(start) : -1, : vocabulary.eot]
        result: np.ndarray = np.exp(log_softmax(logits))[np.arange(len(text)), text]
        return result


@pytest.fixture(scope="module", params=[("tiny.en", "jfk"), ("base", "austen")], ids="-".join)
def case(request: pytest.FixtureRequest) -> Case:
    name, recording = request.param
    path = str(model_directory(name))
    checkpoint = load_checkpoint(path, None)
    kept = [key for key in checkpoint.weights if not key.endswith("_scale")]
    exact = dataclasses.replace(
        checkpoint, weights={key: dense(checkpoint.weights, key) for key in kept}
    )
    network = Network(exact)
    features = FeatureExtractor()(load(recording))[:, :3000]
    features = np.pad(features, ((0, 0), (0, 3000 - features.shape[1])))[None].astype(np.float32)
    sides: dict[str, tuple[Any, Any]] = {}
    for side, cls in (("ours", engine_class()), ("reference", ctranslate2.models.Whisper)):
        model = cls(path, compute_type="float32")
        sides[side] = model, model.encode(ctranslate2.StorageView.from_array(features.copy()))
    return Case(checkpoint, network, network.encode(features.astype(np.float64)), sides)


@pytest.mark.parametrize("beam_size", [1, 5])
@pytest.mark.parametrize("timestamps", [True, False])
def test_scores_are_closer_to_float64(case: Case, timestamps: bool, beam_size: int) -> None:
    """The reference's are always too high: its sum over the vocabulary lacks its small terms."""
    results = case.generate(timestamps, beam_size)
    (ids,) = results["ours"].sequences_ids
    score, silence = case.exact(case.prompt(timestamps), ids, timestamps)
    ours, reference = (results[side].scores[0] - score for side in ("ours", "reference"))
    assert abs(ours) < SCORE
    assert abs(ours) < reference < REFERENCE
    for result in results.values():
        assert result.no_speech_prob == pytest.approx(silence, rel=NO_SPEECH)


def test_word_probabilities_are_closer_to_float64(case: Case) -> None:
    (ids,) = case.generate(False, 1)["ours"].sequences_ids
    text = [token for token in ids if token < case.checkpoint.vocabulary.eot]
    start = case.prompt(True)
    exact = case.exact_words(start, text)
    errors = {
        side: np.array(model.align(encoded, start, [text], 3000)[0].text_token_probs) - exact
        for side, (model, encoded) in case.sides.items()
    }
    assert np.abs(errors["ours"]).max() < WORD
    assert np.abs(errors["ours"]).max() < np.abs(errors["reference"]).max() < REFERENCE
    assert abs(errors["ours"].mean()) < errors["reference"].mean() / 4
