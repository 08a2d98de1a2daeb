"""What passes between a search and the decoder that proposes its candidates.

The rows of a step are item-major: row = item * beams + beam.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from .rules import Constraints

Float32Array = npt.NDArray[np.float32]
Int32Array = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Sampling:
    """How candidates are picked from the distribution of one step."""

    temperature: float = 0.0  # 0: best first
    topk: int = 1  # sample among this many best candidates; 0: among all; 1: best first
    seed: int = 0  # below 2**31; steps of a request have different ones


@dataclass
class Candidates:
    """Proposals of one decoding step."""

    tokens: Int32Array  # [items, candidates]
    origins: Int32Array  # [items, candidates]: row within the item that the candidate continues
    scores: Float32Array  # [items, candidates], best first, or in sampled order
    logits: Float32Array | None = None  # [rows, n_vocab] after the rules, before log-softmax
    watched: Float32Array | None = None  # [rows]: probability of the watched id, before the rules
    attended: Int32Array | None = None  # [rows]: frame that the row's last token attends to most

    def of_items(self, items: slice | list[int], rows: slice | list[int]) -> Candidates:
        """Those of some items, which have these rows."""
        attended = None if self.attended is None else self.attended[rows]
        return Candidates(
            self.tokens[items], self.origins[items], self.scores[items], attended=attended
        )


@dataclass(frozen=True)
class Lookahead:
    """What a decoder has to know to make steps before a search asks for them.

    Only where every row has left its prefix, best candidates are taken, and no rule but that of
    the timestamps says anything.
    """

    steps: int  # at most so many, the one that is asked for included
    remaining: Int32Array  # [items]: hypotheses that may end before the item is finished
    last_timestamps: Int32Array  # [rows, 2]: id or -1, and 1 where it ends the history
    eot: int
    timed: bool  # whether the timestamp rule holds
    summed: bool  # whether scores are those of whole histories, or of the last token alone


@dataclass(frozen=True, eq=False)
class Attention:
    """Where the audio of an item ends, for a search that follows it."""

    heads: Int32Array  # [heads, 2]: the alignment heads, layer and head
    content: int  # encoder frames that are not padding
    until: int  # no steps are made ahead of one that attends to this frame or a later one


@dataclass(frozen=True, eq=False)
class StepRequest:
    """What a search asks of one step of a decoder."""

    tokens: Int32Array  # [rows]: appended to the rows
    scores: Float32Array  # [rows]: of the histories, which those of the candidates are added to
    constraints: Constraints
    beams: int  # rows of an item
    candidates: int  # how many continuations of each item are wanted
    sampling: Sampling
    return_logits: bool = False
    watch: int = -1  # an id whose probability before the rules is wanted
    lookahead: Lookahead | None = None
    attention: Attention | None = None

    @property
    def rows(self) -> int:
        """Hypotheses."""
        return len(self.tokens)


class SearchState(Protocol):
    """The KV cache of a decoding in progress."""

    def take_ahead(self, tokens: Sequence[int]) -> Candidates | None:
        """The step with these tokens, one a row, if it has been made ahead."""

    def reorder(self, rows: Int32Array) -> None:
        """Row r continues old row `rows[r]`; fewer or more rows than before are legal."""


State = TypeVar("State", bound=SearchState)
StateArgument = TypeVar("StateArgument", bound=SearchState, contravariant=True)


class StepDecoder(Protocol[StateArgument]):
    """What a search needs of a decoder, which has a class of states of its own."""

    @property
    def n_vocab(self) -> int:
        """Size of the vocabulary."""

    @property
    def steps_ahead(self) -> int:
        """Steps that it makes at once at most: 1 where it makes none ahead."""

    def prefill(self, state: StateArgument, tokens: Int32Array) -> None:
        """Append `tokens` [rows, length] to the KV cache of all rows."""

    def prefill_probability(self, state: StateArgument, position: int, token: int) -> Float32Array:
        """[rows]: probability of `token` at a position of the last prefill, before any rule."""

    def step(self, state: StateArgument, request: StepRequest) -> Candidates:
        """Append a token to every row and propose continuations of every item.

        A decoder may make steps ahead, which the state hands out when they are asked for.
        """
