"""Beam search: several hypotheses of an item live side by side, and the best ones go on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .base import Hypotheses, Search
from .protocol import State

# Score of what may live on but must not win: the beams beside a forced token, an early end.
_LOSING = -1e10


class BeamSearch(Search[State]):
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
