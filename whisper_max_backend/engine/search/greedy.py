"""Greedy search and sampling: one token at every step."""

from __future__ import annotations

import numpy as np

from .base import Hypotheses, Search
from .protocol import State


class GreedySearch(Search[State]):
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
