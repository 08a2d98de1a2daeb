"""What several requests ask for as one batch: their inputs joined, their results told apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from max.driver import Buffer

from ..search.protocol import Candidates, Int32Array, Lookahead, StepRequest
from .decoder_state import DecoderState, StepAhead


@dataclass(frozen=True, eq=False)
class Step:
    """A step of a request, whose state has advanced already.

    Attributes:
        state: Of the request.
        positions: ``[rows]``: where its tokens go.
        request: What the search asks of it.
    """

    state: DecoderState
    positions: Int32Array
    request: StepRequest

    @property
    def rows(self) -> int:
        """Hypotheses."""
        return self.request.rows


@dataclass(frozen=True, eq=False)
class Prompt:
    """The tokens before the first step of a request, whose state has advanced already.

    Attributes:
        state: Of the request.
        positions: ``[rows]``: where its tokens begin.
        tokens: ``[rows, length]``.
    """

    state: DecoderState
    positions: Int32Array
    tokens: Int32Array


def keep_final_states(prompts: Sequence[Prompt], states: Buffer) -> None:
    """Gives each request its part of the final states ``[rows, length, n_text_state]``."""
    row = 0
    for prompt in prompts:
        end = row + len(prompt.tokens)
        whole = len(prompts) == 1
        prompt.state.prefill_states = states if whole else states[row:end, :, :]
        row = end


def joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """What several requests have, one below the other."""
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def joined_lookahead(steps: Sequence[Step]) -> Lookahead:
    """How far several requests may be looked ahead of together: one that may not stops them all."""
    requests = [step.request for step in steps]
    several = [request.lookahead for request in requests if request.lookahead is not None]
    if len(several) < len(steps) or len({(ahead.timed, ahead.summed) for ahead in several}) > 1:
        rows = sum(step.rows for step in steps)
        items = rows // requests[0].beams
        return Lookahead(
            1, np.zeros(items, np.int32), np.zeros((rows, 2), np.int32), -1, False, False
        )
    return Lookahead(
        min(
            min(ahead.steps, 1 + step.state.left)
            for ahead, step in zip(several, steps, strict=True)
        ),
        joined([ahead.remaining for ahead in several]),
        joined([ahead.last_timestamps for ahead in several]),
        several[0].eot,
        several[0].timed,
        several[0].summed,
    )


def keep_steps_ahead(steps: Sequence[Step], fed: Int32Array, later: Sequence[Candidates]) -> None:
    """Gives each request its part of what was made after the steps that were asked for.

    Args:
        steps: That were executed together.
        fed: ``[steps, rows, 2]``: the token that each row of a later step was given, and the row
            that it continues.
        later: The candidates of the later steps, of all items.
    """
    row = 0
    for step in steps:
        end = row + step.rows
        beams = step.request.beams
        items = slice(row // beams, end // beams)
        step.state.keep_ahead(
            StepAhead(
                given[row:end, 0].tolist(),
                (given[row:end, 1] - row).tolist(),
                list(range(step.rows)),
                one.of_items(items, slice(row, end)),
            )
            for given, one in zip(fed[: len(later)], later, strict=True)
        )
        row = end


def split_candidates(
    steps: Sequence[Step], candidates: Candidates, watched: Buffer, ruled: Buffer
) -> list[Candidates]:
    """Gives each of the steps its own candidates.

    Args:
        steps: That were executed together.
        candidates: Of all their items, best first.
        watched: ``[rows]``.
        ruled: Logits after the rules, ``[items, beams, vocabulary]``.
    """
    logits = ruled.to_numpy() if any(step.request.return_logits for step in steps) else None
    probabilities = watched.to_numpy() if any(step.request.watch >= 0 for step in steps) else None
    results = []
    row = 0
    for step in steps:
        end = row + step.rows
        beams = step.request.beams
        items = slice(row // beams, end // beams)
        results.append(
            Candidates(
                candidates.tokens[items],
                candidates.origins[items],
                candidates.scores[items],
                logits=logits[items].reshape(step.rows, -1)
                if logits is not None and step.request.return_logits
                else None,
                watched=probabilities[row:end]
                if probabilities is not None and step.request.watch >= 0
                else None,
                attended=None if candidates.attended is None else candidates.attended[row:end],
            )
        )
        row = end
    return results
