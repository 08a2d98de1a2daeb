"""Requests that are being decoded: their states, and what each asks of a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from max.driver import Buffer

from .caches import Part
from .decoder_protocol import Candidates, Float32Array, Int32Array, Sampling
from .rules import Constraints


class DecoderState:
    """One request: the keys and values it has seen, and which row continues which.

    A hypothesis writes to the slot of its row number; ``origins[row, position]`` is the slot that
    holds a position of its history. Reordering hypotheses rewrites this table only.
    """

    def __init__(self, part: Part, frames: int, n_text_ctx: int) -> None:
        self.part = part
        self.suppressed: Int32Array = np.zeros(0, np.int32)
        self.penalty = 1.0
        self.first_timestamp = 0
        self.frames = frames
        self.position = 0
        self.windows = part.windows  # of every row
        self.origins = np.zeros((len(part.windows), n_text_ctx), np.int32)
        self.states: Buffer | None = None  # of the last prefill

    def reorder(self, rows: Int32Array) -> None:
        """Row r continues old row ``rows[r]``; there may be more or fewer rows than before."""
        self.windows = self.windows[rows]
        self.origins = self.origins[rows]

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
        return positions


@dataclass(frozen=True, eq=False)
class Step:
    """What a request asks of a step; see `decoder_protocol.Decoder.step`. `positions [rows]` are
    where its tokens go: its state has advanced already."""

    state: DecoderState
    tokens: Int32Array
    positions: Int32Array
    scores: Float32Array
    constraints: Constraints
    beams: int
    candidates: int
    sampling: Sampling
    return_logits: bool
    watch: int

    @property
    def rows(self) -> int:
        """Hypotheses."""
        return len(self.tokens)


def joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """What several requests have, one below the other."""
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


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
    logits = ruled.to_numpy() if any(step.return_logits for step in steps) else None
    probabilities = watched.to_numpy() if any(step.watch >= 0 for step in steps) else None
    results = []
    row = 0
    for step in steps:
        end = row + step.rows
        items = slice(row // step.beams, end // step.beams)
        results.append(
            Candidates(
                candidates.tokens[items],
                candidates.origins[items],
                candidates.scores[items],
                logits=logits[items].reshape(step.rows, -1)
                if logits is not None and step.return_logits
                else None,
                watched=probabilities[row:end]
                if probabilities is not None and step.watch >= 0
                else None,
            )
        )
        row = end
    return results
