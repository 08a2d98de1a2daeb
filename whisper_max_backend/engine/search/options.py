"""The options of a generation, and which of them a search cannot honour."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class SearchOptions:
    """Options of ``Whisper.generate``, with the reference's names, meaning and defaults.

    Attributes:
        beam_size: Beam size (1 for greedy search).
        patience: Beam search patience factor (https://arxiv.org/abs/2204.05424): decoding
            continues until ``beam_size * patience`` hypotheses are finished.
        num_hypotheses: Number of hypotheses to return.
        length_penalty: Exponential penalty applied to the length during beam search.
        repetition_penalty: Penalty applied to the score of previously generated tokens
            (> 1 to penalize).
        no_repeat_ngram_size: Prevent repetitions of ngrams with this size (0 to disable).
        max_length: Of a request: maximum generation length, prompt included; half of it is for
            the text. Of a search: tokens of a hypothesis, forced prefix included; a negative one
            (the prompt filled the context) lets nothing be decoded, as in the reference.
        return_scores: Include the scores in the output.
        return_logits_vocab: Include the logits in the output (greedy search).
        return_no_speech_prob: Include the probability of the no speech token in the result.
        max_initial_timestamp_index: Maximum index of the first predicted timestamp.
        suppress_blank: Suppress blank outputs at the beginning of the sampling.
        suppress_tokens: Token IDs to suppress; -1 stands for the default set of the model.
        sampling_topk: Randomly sample from the top K candidates (0 for all).
        sampling_temperature: Sampling temperature.
        seed: Of the samples; no option of the caller's.
    """

    beam_size: int = 5
    patience: float = 1
    num_hypotheses: int = 1
    length_penalty: float = 1
    repetition_penalty: float = 1
    no_repeat_ngram_size: int = 0
    max_length: int = 448
    return_scores: bool = False
    return_logits_vocab: bool = False
    return_no_speech_prob: bool = False
    max_initial_timestamp_index: int = 50
    suppress_blank: bool = True
    suppress_tokens: Sequence[int] | None = field(default_factory=lambda: [-1])
    sampling_topk: int = 1
    sampling_temperature: float = 1
    seed: int = 0

    @functools.cached_property
    def max_candidates(self) -> int:
        """Hypotheses after which an item is done: beam_size * patience, halves rounded up.

        At most what an int32 holds, which is more than there can be.
        """
        with np.errstate(over="ignore"):
            product = float(np.float32(self.beam_size) * np.float32(self.patience))
        return math.floor(min(product + 0.5, np.iinfo(np.int32).max))

    @property
    def rows_per_item(self) -> int:
        """Most hypotheses that an item has at once."""
        return self.beam_size if self.beam_size > 1 else self.num_hypotheses

    @property
    def samples(self) -> bool:
        """Whether candidates are drawn at random."""
        return self.sampling_topk != 1 and self.sampling_temperature != 0

    def validate(self, n_vocab: int) -> None:
        """Raise ValueError where the reference does, and where it would read out of bounds."""
        if self.beam_size <= 0:
            raise ValueError(
                f"The beam size must be > 0, got beam_size={self.beam_size}: "
                "pass 1 for greedy search"
            )
        if not self.patience > 0:
            raise ValueError(
                f"The patience factor must be > 0, got patience={self.patience}: "
                "pass 1 for the usual beam search"
            )
        if self.num_hypotheses <= 0:
            raise ValueError(
                f"The number of hypotheses must be > 0, got num_hypotheses={self.num_hypotheses}: "
                "pass 1 for the best one"
            )
        samples_freely = self.beam_size == 1 and self.sampling_topk != 1
        if self.num_hypotheses > self.max_candidates and not samples_freely:
            raise ValueError(
                "The number of hypotheses cannot be greater than beam_size * patience, got "
                f"num_hypotheses={self.num_hypotheses} with beam_size={self.beam_size} and "
                f"patience={self.patience}: lower num_hypotheses, raise beam_size, or sample "
                "(beam_size=1 with sampling_topk other than 1)"
            )
        if self.max_length == 0:
            raise ValueError(
                "The maximum decoding length must be > 0, got 0: raise max_length, or shorten "
                "the prompt so that it leaves room for text"
            )
        if not self.repetition_penalty > 0:
            raise ValueError(
                "The repetition penalty must be > 0, got "
                f"repetition_penalty={self.repetition_penalty}: pass 1 to disable it"
            )
        if self.beam_size > 1 and 2 * self.beam_size > n_vocab:
            raise ValueError(
                f"beam_size={self.beam_size} needs {2 * self.beam_size} candidates a step, but "
                f"the vocabulary has {n_vocab} tokens: lower beam_size"
            )
        if self.samples and self.sampling_topk > n_vocab:
            raise ValueError(
                f"sampling_topk option ({self.sampling_topk}) is greater than the vocabulary size "
                f"({n_vocab}): lower it, or pass 0 to sample from all tokens"
            )
        if self.samples and self.beam_size > 1 and 0 < self.sampling_topk < 2 * self.beam_size:
            raise ValueError(
                f"sampling_topk={self.sampling_topk} leaves too few candidates for "
                f"beam_size={self.beam_size}: pass 0, at least {2 * self.beam_size}, or beam_size=1"
            )
