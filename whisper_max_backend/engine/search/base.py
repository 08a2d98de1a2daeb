"""What beam search and greedy search share: the batch, its forced prefixes, steps and results."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic

import numpy as np

from .options import SearchOptions
from .protocol import (
    Attention,
    Candidates,
    Float32Array,
    Lookahead,
    Sampling,
    State,
    StepDecoder,
    StepRequest,
)
from .rules import Rules


@dataclass
class Hypotheses:
    """What was decoded for one item, best first."""

    sequences: list[list[int]] = field(default_factory=list)  # <|endoftext|> left out
    scores: list[float] = field(default_factory=list)  # empty without return_scores
    # One [n_vocab] array per step and sequence, empty without return_logits_vocab. Of a beam
    # search the reference returns a single array without elements per sequence, and so do we.
    logits: list[list[Float32Array]] = field(default_factory=list)
    watched: float = 0.0  # probability of the watched token at the start token


class Search(Generic[State]):
    """What both searches share: the batch, its forced prefixes and the seeds of the steps."""

    def __init__(
        self,
        decoder: StepDecoder[State],
        state: State,
        start_tokens: Sequence[Sequence[int]],
        eot: int,
        options: SearchOptions,
        rules: Rules,
        watch: int = -1,
        attention: Attention | None = None,
    ) -> None:
        self.decoder = decoder
        self.state = state
        self.starts = [tokens[0] for tokens in start_tokens]
        self.prefixes = [list(tokens[1:]) for tokens in start_tokens]
        self.has_prefix = any(self.prefixes)
        self.eot = eot
        self.options = options
        self.rules = rules
        self.watch = watch
        self.attention = attention
        self.results = [Hypotheses() for _ in start_tokens]
        self._seeds = random.Random(options.seed)

    def run(self) -> list[Hypotheses]:
        """Decode the batch to its end."""
        raise NotImplementedError

    def _feed_forced(self, limit: int) -> int:
        """Fill the KV cache with what every item is forced to begin with, in one pass.

        Nothing is chosen at those steps, so no candidates are asked for. Returns the number of
        forced tokens (at most `limit`): the step whose token is the first that may be free.
        """
        forced = min(min(map(len, self.prefixes)), max(limit, 0))
        if forced:
            rows = [
                [start, *prefix[: forced - 1]]
                for start, prefix in zip(self.starts, self.prefixes, strict=True)
            ]
            self.decoder.prefill(self.state, np.array(rows, np.int32))
            if self.watch >= 0:
                self._record_watched(self.decoder.prefill_probability(self.state, 0, self.watch))
        return forced

    def _last_forced(self, forced: int) -> list[int]:
        """The tokens to feed at the first step after `forced` forced tokens."""
        if forced == 0:
            return self.starts
        return [prefix[forced - 1] for prefix in self.prefixes]

    def _step(
        self,
        tokens: Sequence[int],
        scores: Float32Array,
        histories: Sequence[Sequence[int]],
        items: Sequence[int],
        beams: int,
        candidates: int,
        return_logits: bool = False,
    ) -> Candidates:
        """One step of the decoder; `items` are those that still live, `histories` one a row."""
        made_ahead = self.state.take_ahead(tokens)
        if made_ahead is not None:
            return made_ahead
        begins = [len(self.prefixes[item]) for item in items for _ in range(beams)]
        options = self.options
        sampling = Sampling()
        if options.samples:
            sampling = Sampling(
                options.sampling_temperature, options.sampling_topk, self._seeds.getrandbits(31)
            )
        first = not histories[0]
        request = StepRequest(
            np.array(tokens, np.int32),
            scores,
            self.rules.constraints(histories, begins),
            beams,
            candidates,
            sampling,
            return_logits=return_logits,
            watch=self.watch if first else -1,
            lookahead=None if return_logits else self._lookahead(histories, begins, items),
            attention=self.attention,
        )
        proposed = self.decoder.step(self.state, request)
        if first and self.watch >= 0 and proposed.watched is not None:
            self._record_watched(proposed.watched)
        return proposed

    def _lookahead(
        self, histories: Sequence[Sequence[int]], begins: Sequence[int], items: Sequence[int]
    ) -> Lookahead | None:
        """How far the decoder may go on without asking, as `BeamSearch` and `GreedySearch` do."""
        steps = min(self.decoder.steps_ahead, self.options.max_length - len(histories[0]))
        if steps < 2 or self.options.samples:
            return None
        last_timestamps = self.rules.last_timestamps(histories, begins)
        if last_timestamps is None:
            return None
        return Lookahead(
            steps,
            np.array([self._remaining(item) for item in items], np.int32),
            last_timestamps,
            self.eot,
            timed=self.rules.timestamps is not None,
            summed=self.options.beam_size > 1,
        )

    def _remaining(self, item: int) -> int:
        """How many hypotheses of an item may end before it is finished, at least."""
        return 1

    def _record_watched(self, probabilities: Float32Array) -> None:
        copies = len(probabilities) // len(self.results)  # rows of an item are alike at the start
        for result, probability in zip(self.results, probabilities[::copies], strict=True):
            result.watched = float(probability)

    def _normalize(self, result: Hypotheses) -> None:
        """Divide scores by a power of the lengths."""
        penalty = np.float32(self.options.length_penalty)
        with np.errstate(all="ignore"):  # an empty hypothesis scores -inf or nan, as in C++
            result.scores = [
                float(np.float32(score) / np.power(np.float32(len(sequence)), penalty))
                for score, sequence in zip(result.scores, result.sequences, strict=True)
            ]

    def _keep_best(self, result: Hypotheses) -> None:
        """Sort by score, ties in the order of registration, and keep what was asked for."""
        options = self.options
        order = sorted(range(len(result.sequences)), key=lambda i: -result.scores[i])
        order = order[: options.num_hypotheses]
        result.sequences = [result.sequences[i] for i in order]
        result.scores = [result.scores[i] for i in order] if options.return_scores else []
        result.logits = [result.logits[i] for i in order] if options.return_logits_vocab else []
