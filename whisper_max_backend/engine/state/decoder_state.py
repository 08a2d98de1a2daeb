"""A request that is being decoded: what it has seen, and steps that were made ahead for it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from max.driver import Buffer

from ...system.cancellation import NEVER, StopFlag
from ..search.protocol import Candidates, Int32Array
from ..search.rules import FixedRules
from .kv_cache import KVAllocation


class StepAhead(NamedTuple):
    """A step that was made before it was asked for."""

    tokens: list[int]  # that its rows were given
    origins: list[int]  # rows that its rows continue
    slots: list[int]  # that its rows have written to, by their numbers in the request
    candidates: Candidates

    @property
    def beams(self) -> int:
        """Rows of an item."""
        return len(self.tokens) // len(self.candidates.tokens)

    def of_items(self, items: Sequence[int], before: Sequence[int]) -> StepAhead:
        """Its part of some items, where the step before it is left with the items `before`."""
        beams = self.beams
        rows = [item * beams + beam for item in items for beam in range(beams)]
        moved = {item * beams: place * beams for place, item in enumerate(before)}
        origins = [self.origins[row] for row in rows]
        return StepAhead(
            [self.tokens[row] for row in rows],
            [moved[row - row % beams] + row % beams for row in origins],
            [self.slots[row] for row in rows],
            self.candidates.of_items(list(items), rows),
        )


class DecoderState:
    """One request: the keys and values it has seen, and which row continues which.

    A hypothesis writes to the slot of its row number; ``slot_table[row, position]`` is the slot
    that holds a position of its history. Reordering hypotheses rewrites this table only.
    """

    def __init__(
        self,
        allocation: KVAllocation,
        frames: int,
        n_text_ctx: int,
        rules: FixedRules,
        stop: StopFlag = NEVER,
    ) -> None:
        self.allocation = allocation
        self.rules = rules
        self.stop = stop
        self.frames = frames
        self.position = 0
        self.windows = allocation.windows  # of every row
        self.slot_table = np.zeros((len(allocation.windows), n_text_ctx), np.int32)
        self.prefill_states: Buffer | None = None  # the final ones of the last prefill
        self._ahead: deque[StepAhead] = deque()
        self._origins: list[int] | None = None  # rows since the last step, where they moved

    @property
    def left(self) -> int:
        """Positions that nothing has been written to."""
        return self.slot_table.shape[1] - self.position

    def reorder(self, rows: Int32Array) -> None:
        """Row r continues old row ``rows[r]``; there may be more or fewer rows than before."""
        self.windows = self.windows[rows]
        self.slot_table = self.slot_table[rows]
        self._origins = rows.tolist()

    def keep_ahead(self, steps: Iterable[StepAhead]) -> None:
        """Keeps steps that were made ahead, in their order, until they are asked for."""
        self._ahead.extend(steps)

    def take_ahead(self, tokens: Sequence[int]) -> Candidates | None:
        """The step that is asked for, with these tokens, if it has been made already.

        If it was another one, what was made ahead is forgotten: its keys and values lie behind
        where the next step writes.
        """
        if not self._ahead:
            return None
        step = self._ahead.popleft()
        origins = self._origins or list(range(len(tokens)))
        if len(tokens) < len(step.tokens):  # some items are done; what was made for others holds
            items = [row // step.beams for row in origins[:: step.beams]]
            step = step.of_items(items, range(len(step.candidates.tokens)))
            self._ahead = deque(later.of_items(items, items) for later in self._ahead)
        if tokens != step.tokens or origins != step.origins:
            self._ahead.clear()
            return None
        self.advance(1, step.slots)
        return step.candidates

    def advance(self, tokens: int, slots: Sequence[int] | None = None) -> Int32Array:
        """Makes room for new tokens of every row; returns where each row's first one goes.

        `slots` are those that the rows write to, by number, where these are not the rows' own.
        """
        rows, context = self.slot_table.shape
        end = self.position + tokens
        if end > context:
            raise RuntimeError(
                f"No position encodings are defined for positions >= {context}, but got position "
                f"{end - 1}: shorten the prompt or max_length"
            )
        written = self.allocation.slots[range(rows) if slots is None else slots]
        self.slot_table[:, self.position : end] = written[:, None]
        positions = np.full(rows, self.position, np.int32)
        self.position = end
        self._origins = None
        return positions
