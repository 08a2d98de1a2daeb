"""Beam search, greedy search and sampling over a decoder that proposes candidates.

The decoder owns the device, the caches and the arithmetic on the vocabulary; a search owns what
has been chosen: histories, scores, which beams live on and which items are done. Semantics are
those of CTranslate2 (BeamSearch::search and GreedySearch::search in decoding.cc), float32 scores
and order of ties included. Rows are item-major: row = item * beams + beam.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from .decoder_protocol import Ahead, Candidates, Decoder, DecoderState, Float32Array, Sampling
from .decoding_options import DecodingOptions
from .rules import Rules

__all__ = [
    "BeamSearch",
    "Candidates",
    "Decoder",
    "DecoderState",
    "DecodingOptions",
    "GreedySearch",
    "Hypotheses",
    "Sampling",
    "decode",
]

# Steps that the decoder may make at once while no item is finished. More of them bring little, and
# a call that joins others waits until they are made.
STEPS_AHEAD = 8

# Score of what may live on but must not win: the beams beside a forced token, an early end.
_LOSING = -1e10


@dataclass
class Hypotheses:
    """What was decoded for one item, best first."""

    sequences: list[list[int]] = field(default_factory=list)  # <|endoftext|> left out
    scores: list[float] = field(default_factory=list)  # empty without return_scores
    # One [n_vocab] array per step and sequence, empty without return_logits_vocab. Of a beam
    # search the reference returns a single array without elements per sequence, and so do we.
    logits: list[list[Float32Array]] = field(default_factory=list)
    watched: float = 0.0  # probability of the watched token at the start token


def decode(
    decoder: Decoder,
    state: DecoderState,
    start_tokens: Sequence[Sequence[int]],
    eot: int,
    options: DecodingOptions,
    rules: Rules,
    watch: int = -1,
) -> list[Hypotheses]:
    """Decode every item of a batch; `state` has one row an item.

    `start_tokens[item]` are the start token and the forced prefix that hypotheses begin with.
    With `watch` >= 0 the probability of that id after the start token, before any rule, is
    returned too. Raises ValueError for options that cannot be honoured.
    """
    options.validate(decoder.n_vocab)
    if not start_tokens:
        raise ValueError("No decoder start tokens are set: pass at least one prompt")
    if not all(start_tokens):
        raise ValueError(
            "One input has no decoder start token: begin every prompt with <|startoftranscript|>"
        )
    search = BeamSearch if options.beam_size > 1 else GreedySearch
    return search(decoder, state, start_tokens, eot, options, rules, watch).run()


class _Search:
    """What both searches share: the batch, its forced prefixes and the seeds of the steps."""

    def __init__(
        self,
        decoder: Decoder,
        state: DecoderState,
        start_tokens: Sequence[Sequence[int]],
        eot: int,
        options: DecodingOptions,
        rules: Rules,
        watch: int = -1,
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
        self.results = [Hypotheses() for _ in start_tokens]
        self._seeds = random.Random(options.seed)

    def run(self) -> list[Hypotheses]:
        """Decode the batch to its end."""
        raise NotImplementedError

    def _feed_forced(self, limit: int) -> int:
        """Fill the caches with what every item is forced to begin with, in one pass.

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
        foreseen = self.state.foreseen(tokens)
        if foreseen is not None:
            return foreseen
        begins = [len(self.prefixes[item]) for item in items for _ in range(beams)]
        options = self.options
        sampling = Sampling()
        if options.samples:
            sampling = Sampling(
                options.sampling_temperature, options.sampling_topk, self._seeds.getrandbits(31)
            )
        first = not histories[0]
        proposed = self.decoder.step(
            self.state,
            np.array(tokens, np.int32),
            scores,
            self.rules.constraints(histories, begins),
            beams,
            candidates,
            sampling,
            return_logits=return_logits,
            watch=self.watch if first else -1,
            ahead=None if return_logits else self._ahead(histories, begins, items),
        )
        if first and self.watch >= 0 and proposed.watched is not None:
            self._record_watched(proposed.watched)
        return proposed

    def _ahead(
        self, histories: Sequence[Sequence[int]], begins: Sequence[int], items: Sequence[int]
    ) -> Ahead | None:
        """How far the decoder may go on without asking, as `BeamSearch` and `GreedySearch` do."""
        steps = min(STEPS_AHEAD, self.options.max_length - len(histories[0]))
        if steps < 2 or self.options.samples:
            return None
        stamps = self.rules.stamps(histories, begins)
        if stamps is None:
            return None
        return Ahead(
            steps,
            np.array([self._remaining(item) for item in items], np.int32),
            stamps,
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


class BeamSearch(_Search):
    """Beam search with patience (https://arxiv.org/abs/2204.05424) and a length penalty.

    Twice as many candidates as beams are examined, so that beams which end are replaced.
    """

    def run(self) -> list[Hypotheses]:
        options = self.options
        beam_size = options.beam_size
        width = 2 * beam_size
        forced = self._feed_forced(options.max_length)
        if forced and forced == options.max_length:
            self._finish_inside_prefix()
            return self.results

        # All beams of an item are alike until its first choice, so until then it has one row.
        items = list(range(len(self.results)))
        histories = [prefix[:forced] for prefix in self.prefixes]
        tokens = self._last_forced(forced)
        scores = np.zeros(len(items), np.float32)
        beams = 1
        top_finished = [False] * len(items)

        for step in range(forced, options.max_length):
            proposed = self._step(tokens, scores, histories, items, beams, width)
            new_tokens: list[int] = []
            new_histories: list[list[int]] = []
            new_scores: list[float] = []
            rows: list[int] = []
            alive: list[int] = []
            all_ids = proposed.tokens.tolist()
            all_origins = proposed.origins.tolist()
            all_totals = proposed.scores.tolist()

            for i, item in enumerate(items):
                ids, origins, totals = all_ids[i], all_origins[i], all_totals[i]
                if self.has_prefix:
                    self._impose_prefix(step, self.prefixes[item], ids, origins, totals)
                pasts = [histories[i * beams + origin] for origin in origins]
                kept, top_ended = self._register(step, item, ids, totals, pasts)
                top_finished[item] |= top_ended
                if self._is_finished(step, item, top_finished[item]):
                    self._normalize(self.results[item])
                    self._keep_best(self.results[item])
                    continue
                alive.append(item)
                for k in kept:
                    new_tokens.append(ids[k])
                    new_scores.append(totals[k])
                    new_histories.append([*pasts[k], ids[k]])
                    rows.append(i * beams + origins[k])

            if not alive:
                break
            self.state.reorder(np.array(rows, np.int32))
            items, tokens, histories = alive, new_tokens, new_histories
            scores = np.array(new_scores, np.float32)
            beams = beam_size

        return self.results

    def _impose_prefix(
        self,
        step: int,
        prefix: Sequence[int],
        ids: list[int],
        origins: list[int],
        totals: list[float],
    ) -> None:
        """Override the candidates of an item that is inside its prefix, or has just left it.

        Inside, only the first beam counts. At the first free step an early end in any but the
        best candidate would give short texts that win without length normalization.
        """
        if step < len(prefix):
            for k in range(len(ids)):
                ids[k], origins[k], totals[k] = prefix[step], 0, 0.0 if k == 0 else _LOSING
        elif step == len(prefix):
            for k in range(1, len(ids)):
                if ids[k] == self.eot:
                    ids[k], origins[k], totals[k] = 0, 0, _LOSING

    def _register(
        self, step: int, item: int, ids: list[int], totals: list[float], pasts: list[list[int]]
    ) -> tuple[list[int], bool]:
        """Register the hypotheses that end at this step; `pasts` are what candidates continue.

        Returns the candidates that live on, one a beam, and whether the first beam ended.
        """
        beam_size = self.options.beam_size
        last_step = step + 1 == self.options.max_length
        free = step >= len(self.prefixes[item])
        result = self.results[item]
        kept = list(range(beam_size))
        spare = beam_size

        for k in range(beam_size):
            ended = ids[k] == self.eot
            if not (last_step or (ended and free)):
                continue
            result.sequences.append(list(pasts[k]) if ended else [*pasts[k], ids[k]])
            result.scores.append(totals[k])
            result.logits.append([np.empty(0, np.float32)])
            for j in range(spare, len(ids)):
                if ids[j] != self.eot:
                    kept[k] = j
                    spare = j + 1
                    break

        return kept, last_step or (ids[0] == self.eot and free)

    def _is_finished(self, step: int, item: int, top_finished: bool) -> bool:
        """Whether no further hypotheses of the item are wanted."""
        options = self.options
        if step + 1 == options.max_length:
            return True
        found = len(self.results[item].sequences)
        if options.length_penalty == 0:
            return top_finished and found >= options.num_hypotheses
        return found >= options.max_candidates

    def _remaining(self, item: int) -> int:
        if self.options.length_penalty == 0:
            return 1
        return self.options.max_candidates - len(self.results[item].sequences)

    def _finish_inside_prefix(self) -> None:
        """End every item at max_length, which its prefix reaches or exceeds."""
        step = self.options.max_length - 1
        beam_size = self.options.beam_size
        for item, prefix in enumerate(self.prefixes):
            totals = [0.0] + [_LOSING] * (beam_size - 1)
            self._register(
                step, item, [prefix[step]] * beam_size, totals, [prefix[:step]] * beam_size
            )
            self._normalize(self.results[item])
            self._keep_best(self.results[item])


class GreedySearch(_Search):
    """The best, or a sampled, token at every step.

    With several hypotheses every item is decoded that many times over; that is of use where
    tokens are sampled.
    """

    def run(self) -> list[Hypotheses]:
        copies = self.options.num_hypotheses
        # Logits are wanted of every step, so then forced tokens go through steps as well.
        limit = 0 if self.options.return_logits_vocab else self.options.max_length
        forced = self._feed_forced(limit)
        if copies > 1:
            items = np.arange(len(self.results), dtype=np.int32)
            self.state.reorder(np.repeat(items, copies))
        samples = self._run_samples(forced, copies)

        for item, result in enumerate(self.results):
            drawn = samples[item * copies : (item + 1) * copies]
            for sample in drawn:
                result.sequences += sample.sequences
                result.scores += sample.scores
                result.logits += sample.logits
            self._keep_best(result)
        return self.results

    def _run_samples(self, forced: int, copies: int) -> list[Hypotheses]:
        """Decode `copies` rows of every item, item-major; each result has one hypothesis."""
        eot = self.eot
        max_length = self.options.max_length
        items = [item for item in range(len(self.results)) for _ in range(copies)]
        tokens = [token for token in self._last_forced(forced) for _ in range(copies)]
        histories = [self.prefixes[item][:forced] for item in items]
        # A forced <|endoftext|> is fed like any other token but is no part of the hypothesis.
        results = [
            Hypotheses([[token for token in history if token != eot]], [0.0], [[]])
            for history in histories
        ]
        rows = list(range(len(items)))  # rows that live, as indices of `items`

        for step in range(forced, max_length):
            proposed = self._step(
                tokens,
                np.zeros(len(rows), np.float32),
                histories,
                [items[row] for row in rows],
                beams=1,
                candidates=1,
                return_logits=self.options.return_logits_vocab,
            )
            chosen = proposed.tokens[:, 0].tolist()
            gains = proposed.scores[:, 0]
            alive: list[int] = []

            for i, row in enumerate(rows):
                prefix = self.prefixes[items[row]]
                token, gain = chosen[i], gains[i]
                if step < len(prefix):
                    token, gain = prefix[step], np.float32(0)
                result = results[row]
                if proposed.logits is not None:
                    result.logits[0].append(proposed.logits[i])
                if token != eot:
                    result.sequences[0].append(token)
                result.scores[0] = float(np.float32(result.scores[0]) + gain)
                histories[i].append(token)
                if not (token == eot and step >= len(prefix)):
                    alive.append(i)

            if not alive:
                break
            if len(alive) != len(rows):
                self.state.reorder(np.array(alive, np.int32))
            rows = [rows[i] for i in alive]
            histories = [histories[i] for i in alive]
            tokens = [history[-1] for history in histories]

        if max_length > 0:
            for result in results:
                self._normalize(result)
        return results
