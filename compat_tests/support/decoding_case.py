"""One miniature model under both decodings: the reference's, and the searches over numpy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
import pytest

from compat_tests.support import miniature
from compat_tests.support.numpy_decoder import NumpyDecoder, read_variables
from whisper_max_backend.engine.search.base import Hypotheses
from whisper_max_backend.engine.search.options import SearchOptions
from whisper_max_backend.engine.search.rules import FixedRules, Timestamps, fixed_bans, make_rules
from whisper_max_backend.engine.search.run import run_search

BATCH = 3


@dataclass(frozen=True)
class DecodingCase:
    """A model that both sides have loaded, and audio that the reference has encoded."""

    reference: ctranslate2.models.Whisper
    decoder: NumpyDecoder
    encoded: np.ndarray  # float32 [BATCH, frames, size]
    config: dict[str, Any]
    ids: dict[str, int]

    @property
    def first_timestamp(self) -> int:
        return self.ids["<|0.00|>"]

    def prompt(self, *text: int, timestamps: bool = False, previous: Sequence[int] = ()) -> list:
        head = [*previous, "<|startoftranscript|>", "<|en|>", "<|transcribe|>"]
        names = head if timestamps else [*head, "<|notimestamps|>"]
        return [*(self.ids[t] if isinstance(t, str) else t for t in names), *text]

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        seed: int = 0,
        no_repeat_ngram_size: int = 0,
        max_length: int = 448,
        return_no_speech_prob: bool = False,
        max_initial_timestamp_index: int = 50,
        suppress_blank: bool = True,
        suppress_tokens: Sequence[int] | None = (-1,),
        **settings: Any,
    ) -> list[Hypotheses]:
        """What WhisperReplica::generate does around the decoding, for token ids."""
        sot, last_task = self.ids["<|startoftranscript|>"], self.ids["<|notimestamps|>"]
        cut = prompts[0].index(sot)
        while cut < len(prompts[0]) and sot <= prompts[0][cut] <= last_task:
            cut += 1
        timestamps = prompts[0][cut - 1] != last_task
        repetition_penalty = settings.get("repetition_penalty", 1.0)
        suppressed = fixed_bans(
            suppress_tokens or (),
            self.config["suppress_ids"],
            self.decoder.n_vocab,
            last_task if timestamps else None,
        )
        state = self.decoder.start(
            self.encoded[: len(prompts)],
            FixedRules(np.array(suppressed, np.int32), repetition_penalty),
        )
        if cut > 1:
            self.decoder.prefill(state, np.array([p[: cut - 1] for p in prompts], np.int32))
        rules = make_rules(
            repetition_penalty=repetition_penalty,
            no_repeat_ngram_size=no_repeat_ngram_size,
            suppress_begin=self.config["suppress_ids_begin"] if suppress_blank else (),
            timestamps=Timestamps(
                self.ids["<|endoftext|>"],
                self.first_timestamp,
                self.decoder.n_vocab,
                max_initial_timestamp_index,
            )
            if timestamps
            else None,
        )
        return run_search(
            self.decoder,
            state,
            [list(p[cut - 1 :]) for p in prompts],
            self.ids["<|endoftext|>"],
            SearchOptions(
                max_length=min(max_length // 2, max_length - (cut - 1)), seed=seed, **settings
            ),
            rules,
            watch=self.ids["<|nospeech|>"] if return_no_speech_prob else -1,
        )

    def check(self, prompts: Sequence[Sequence[int]], **options: Any) -> list[Hypotheses]:
        """Both decode; every token and score has to agree. Returns what they found."""
        options = {"return_scores": True, **options}
        ours = self.generate(prompts, **options)
        encoded = ctranslate2.StorageView.from_array(self.encoded[: len(prompts)])
        theirs = self.reference.generate(encoded, prompts, **options)
        assert [result.sequences for result in ours] == [r.sequences_ids for r in theirs]
        for result, expected in zip(ours, theirs, strict=True):
            assert len(result.scores) == len(expected.scores)
            np.testing.assert_allclose(result.scores, expected.scores, rtol=1e-5, atol=1e-4)
            assert [len(steps) for steps in result.logits] == [len(s) for s in expected.logits]
            if options.get("return_no_speech_prob"):
                assert result.watched == pytest.approx(expected.no_speech_prob, rel=1e-4)
        return ours


def make_livelier(directory: Path, seed: int) -> None:
    """Write a miniature whose texts end now and then and have timestamps now and then."""
    architecture = miniature.ARCHITECTURES["one-head"]
    random_weights = miniature.random_weights

    def livelier_weights(*args: Any, **kwargs: Any) -> dict[str, np.ndarray]:
        # Texts are not to repeat themselves only, nor timestamps to outweigh them at every step.
        weights = random_weights(*args, **kwargs)
        embeddings = weights["decoder/embeddings/weight"]
        tokens = miniature.vocabulary_tokens(architecture)
        embeddings[tokens.index("<|endoftext|>")] *= 1.4
        embeddings[tokens.index("<|0.00|>") :] *= 0.8
        weights["decoder/position_encodings/encodings"] *= 3
        return weights

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(miniature, "random_weights", livelier_weights)
        miniature.make_model(directory, architecture, seed=seed)


def load_case(directory: Path, seed: int) -> DecodingCase:
    """Write a miniature and load it on both sides."""
    make_livelier(directory, seed)
    architecture = miniature.ARCHITECTURES["one-head"]
    reference = ctranslate2.models.Whisper(str(directory), intra_threads=1)
    noise = np.random.default_rng(1).standard_normal((BATCH, architecture.n_mels, 60))
    features = ctranslate2.StorageView.from_array(noise.astype(np.float32))
    ids = {token: i for i, token in enumerate(miniature.vocabulary_tokens(architecture))}
    return DecodingCase(
        reference,
        NumpyDecoder(
            read_variables(directory / "model.bin"), ids["<|endoftext|>"], ids["<|0.00|>"]
        ),
        np.array(reference.encode(features)),
        miniature.model_config(architecture),
        ids,
    )
