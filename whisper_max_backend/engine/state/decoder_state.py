"""Requests that are being decoded: their states, and what each asks of a step."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from max.driver import Buffer

from ..search.protocol import Ahead, Candidates, Int32Array, StepRequest
from ..search.rules import FixedRules
from .kv_cache import Part


class Foreseen(NamedTuple):
    """A step that was made before it was asked for: what its rows were given, and its answer."""

    tokens: list[int]
    parents: list[int]
    candidates: Candidates


class DecoderState:
    """One request: the keys and values it has seen, and which row continues which.

    A hypothesis writes to the slot of its row number; ``origins[row, position]`` is the slot that
    holds a position of its history. Reordering hypotheses rewrites this table only.
    """

    def __init__(self, part: Part, frames: int, n_text_ctx: int, rules: FixedRules) -> None:
        self.part = part
        self.rules = rules
        self.frames = frames
        self.position = 0
        self.windows = part.windows  # of every row
        self.origins = np.zeros((len(part.windows), n_text_ctx), np.int32)
        self.states: Buffer | None = None  # of the last prefill
        self._foreseen: deque[Foreseen] = deque()
        self._parents: list[int] | None = None  # rows since the last step, where they moved

    @property
    def left(self) -> int:
        """Positions that nothing has been written to."""
        return self.origins.shape[1] - self.position

    def reorder(self, rows: Int32Array) -> None:
        """Row r continues old row ``rows[r]``; there may be more or fewer rows than before."""
        self.windows = self.windows[rows]
        self.origins = self.origins[rows]
        self._parents = rows.tolist()

    def foresee(self, steps: Iterable[Foreseen]) -> None:
        """Keeps steps that were made ahead, in their order, until they are asked for."""
        self._foreseen.extend(steps)

    def foreseen(self, tokens: Sequence[int]) -> Candidates | None:
        """The step that is asked for, with these tokens, if it has been made already.

        If it was another one, what was foreseen is forgotten: its keys and values lie behind
        where the next step writes.
        """
        if not self._foreseen:
            return None
        step = self._foreseen.popleft()
        parents = self._parents or list(range(len(tokens)))
        if tokens != step.tokens or parents != step.parents:
            self._foreseen.clear()
            return None
        self.advance(1)
        return step.candidates

    def advance(self, tokens: int) -> Int32Array:
        """Makes room for new tokens of every row; returns where each row's first one goes."""
        rows, context = self.origins.shape
        end = self.position + tokens
        if end > context:
            raise RuntimeError(
                f"No position encodings are defined for positions >= {context}, but got position "
                f"{end - 1}: shorten the prompt or max_length"
            )
        self.origins[:, self.position : end] = self.part.slots[:rows, None]
        positions = np.full(rows, self.position, np.int32)
        self.position = end
        self._parents = None
        return positions


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


def joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """What several requests have, one below the other."""
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def joined_ahead(steps: Sequence[Step]) -> Ahead:
    """How far several requests may be looked ahead of together: one that may not stops them all."""
    requests = [step.request for step in steps]
    several = [request.ahead for request in requests if request.ahead is not None]
    if len(several) < len(steps) or len({(ahead.timed, ahead.summed) for ahead in several}) > 1:
        rows = sum(step.rows for step in steps)
        items = rows // requests[0].beams
        return Ahead(1, np.zeros(items, np.int32), np.zeros((rows, 2), np.int32), -1, False, False)
    return Ahead(
        min(
            min(ahead.steps, 1 + step.state.left)
            for ahead, step in zip(several, steps, strict=True)
        ),
        joined([ahead.remaining for ahead in several]),
        joined([ahead.stamps for ahead in several]),
        several[0].eot,
        several[0].timed,
        several[0].summed,
    )


def foresee(steps: Sequence[Step], fed: Int32Array, later: Sequence[Candidates]) -> None:
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
        step.state.foresee(
            Foreseen(
                given[row:end, 0].tolist(), (given[row:end, 1] - row).tolist(), of_items(one, items)
            )
            for given, one in zip(fed[: len(later)], later, strict=True)
        )
        row = end


def of_items(candidates: Candidates, items: slice) -> Candidates:
    """Those of some items."""
    return Candidates(candidates.tokens[items], candidates.origins[items], candidates.scores[items])


def shared_out(
    steps: Sequence[Step], candidates: Candidates, watched: Buffer, ruled: Buffer
) -> list[Candidates]:
    """To each of the steps what is its own.

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
            )
        )
        row = end
    return results
