"""Decoding rules: what a row's history says about its next token.

Each rule looks at one row: `history`, the ids sampled since the decoding began (forced prefix
included, start token not), and `begin`, the length of that prefix. The index of the step is
therefore `len(history)`. A rule writes what it finds into a `Verdict`; `Rules` lays the verdicts
of all rows out as the arrays that are applied to the logits where they are computed.

The rules are those of CTranslate2: decoding_utils.cc and ApplyTimestampRules in models/whisper.cc.
What is banned at every step alike is no rule here but part of `fixed_bans`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

Int32Array = npt.NDArray[np.int32]

MAX_RANGES = 2  # id ranges a row can have banned at one step; no rule combination needs more


@dataclass(frozen=True, eq=False)
class FixedRules:
    """What holds at every step of a request: the decoder gets it once, when the request starts."""

    suppressed: Int32Array = field(default_factory=lambda: np.zeros(0, np.int32))
    """Ids that are never candidates."""
    repetition_penalty: float = 1.0
    """Applied to `Constraints.penalized`."""
    first_timestamp: int = 0
    """Id where the timestamps begin, for `Constraints.check_timestamps`."""


@dataclass
class Constraints:
    """What the rules say about the next token, one entry per row; applied on the device."""

    ranges: Int32Array  # [rows, 2, 2]: half-open id ranges banned (low, high); (0, 0) is empty
    banned: Int32Array  # [rows, n]: further banned ids, padded with -1
    penalized: Int32Array  # [rows, m]: distinct previous ids to penalize, padded with -1
    check_timestamps: Int32Array  # [rows]: 1 where timestamps outweighing every text token ban text

    @classmethod
    def joined(cls, several: Sequence[Constraints]) -> Constraints:
        """Those of several requests, one below the other."""
        if len(several) == 1:
            return several[0]
        return cls(
            ranges=np.concatenate([one.ranges for one in several]),
            banned=stacked([one.banned for one in several]),
            penalized=stacked([one.penalized for one in several]),
            check_timestamps=np.concatenate([one.check_timestamps for one in several]),
        )


@dataclass(slots=True)
class Verdict:
    """What the rules say about the next token of one row."""

    ranges: list[tuple[int, int]] = field(default_factory=list)
    banned: list[int] = field(default_factory=list)
    penalized: list[int] = field(default_factory=list)
    check_timestamps: bool = False


class Rule(Protocol):
    """Adds what it has to say about the token after `history` to `verdict`."""

    def __call__(self, history: Sequence[int], begin: int, verdict: Verdict) -> None: ...


class RepetitionPenalty:
    """Names every id of the history, once, for the penalty (https://arxiv.org/abs/1909.05858)."""

    def __call__(self, history: Sequence[int], begin: int, verdict: Verdict) -> None:
        verdict.penalized.extend(dict.fromkeys(history))


class NoRepeatNgram:
    """Bans the ids that would complete an n-gram of `size` ids for the second time."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, history: Sequence[int], begin: int, verdict: Verdict) -> None:
        context = self.size - 1
        if context == 0:
            verdict.banned.extend(dict.fromkeys(history))
            return
        starts = len(history) - context  # n-grams that start before this are complete
        if starts <= 0:
            return
        tail = history[-context:]
        first = tail[0]
        found = {
            history[i + context]
            for i, token in enumerate(history[:starts])
            if token == first and history[i : i + context] == tail
        }
        verdict.banned.extend(sorted(found))


class SuppressBegin:
    """Bans `ids` as the first token after the prefix (the suppress_blank option)."""

    def __init__(self, ids: Iterable[int]) -> None:
        self.ids = list(dict.fromkeys(ids))

    def __call__(self, history: Sequence[int], begin: int, verdict: Verdict) -> None:
        if len(history) == begin:
            verdict.banned.extend(self.ids)


class Timestamps:
    """Makes timestamps start the text, come in pairs and never decrease.

    `first` is the id of <|0.00|>, `end` the size of the vocabulary. Without a prefix the first
    token is a timestamp no later than <|0.00|> + `max_initial` steps. Whether timestamps outweigh
    the text can only be told from the probabilities: `check_timestamps` asks for that.
    """

    def __init__(self, eot: int, first: int, end: int, max_initial: int) -> None:
        self.eot = eot
        self.first = first
        self.end = end
        self.latest_initial = first + max_initial

    def __call__(self, history: Sequence[int], begin: int, verdict: Verdict) -> None:
        step = len(history)
        first = self.first
        ranges = verdict.ranges

        if step == 0:  # hence no prefix: a forced token would have been fed first
            if begin == 0:
                ranges.append((0, first))
                if self.latest_initial + 1 < self.end:
                    ranges.append((self.latest_initial + 1, self.end))
            return
        if step <= begin:
            return

        last = history[-1]
        if last < first:
            verdict.check_timestamps = True
            for token in reversed(history[begin:-1]):
                if token >= first:
                    ranges.append((first, token + 1))
                    return
        elif step - 1 == begin or history[-2] >= first:
            ranges.append((first, self.end))  # a pair (or the opening one) is complete
        else:
            verdict.check_timestamps = True
            ranges.append((0, self.eot))
            if last > first:
                ranges.append((first, last))


class Rules:
    """The rules of one request, applied to all of its rows."""

    def __init__(self, rules: Iterable[Rule] = ()) -> None:
        self.rules = tuple(rules)
        self.timestamps = next((r for r in self.rules if isinstance(r, Timestamps)), None)
        self._idle: dict[int, Constraints] = {}

    def last_timestamps(
        self, histories: Sequence[Sequence[int]], begins: Sequence[int]
    ) -> Int32Array | None:
        """What `protocol.Lookahead.last_timestamps` are, or None where steps cannot be made ahead.

        A history has to be longer than its prefix: then the first token's rules are behind it.
        """
        if not all(isinstance(rule, SuppressBegin | Timestamps) for rule in self.rules):
            return None
        if any(len(history) <= begin for history, begin in zip(histories, begins, strict=True)):
            return None
        found = np.zeros((len(histories), 2), np.int32)
        if self.timestamps is not None:
            first = self.timestamps.first
            for row, (history, begin) in enumerate(zip(histories, begins, strict=True)):
                text = reversed(history[begin:])
                latest = next((token for token in text if token >= first), -1)
                found[row] = latest, history[-1] >= first
        return found

    def constraints(self, histories: Sequence[Sequence[int]], begins: Sequence[int]) -> Constraints:
        """Constraints on the next token of every row.

        `histories[row]` are the ids sampled so far, `begins[row]` is the row's prefix length.
        The arrays are shared between calls that find nothing: they are to be read, not written.
        """
        rows = len(histories)
        if not self.rules:
            return self._unconstrained(rows)
        verdicts = [Verdict() for _ in range(rows)]
        for history, begin, verdict in zip(histories, begins, verdicts, strict=True):
            for rule in self.rules:
                rule(history, begin, verdict)
        idle = self._unconstrained(rows)
        return Constraints(
            ranges=_range_array([v.ranges for v in verdicts], idle.ranges),
            banned=_padded([v.banned for v in verdicts], idle.banned),
            penalized=_padded([v.penalized for v in verdicts], idle.penalized),
            check_timestamps=np.array([v.check_timestamps for v in verdicts], np.int32),
        )

    def _unconstrained(self, rows: int) -> Constraints:
        if rows not in self._idle:
            self._idle[rows] = Constraints(
                ranges=np.zeros((rows, MAX_RANGES, 2), np.int32),
                banned=np.empty((rows, 0), np.int32),
                penalized=np.empty((rows, 0), np.int32),
                check_timestamps=np.zeros(rows, np.int32),
            )
        return self._idle[rows]


def _range_array(rows: list[list[tuple[int, int]]], idle: Int32Array) -> Int32Array:
    """[rows, MAX_RANGES, 2] of the ranges; `idle` when there are none."""
    if not any(rows):
        return idle
    filled = [ranges + [(0, 0)] * (MAX_RANGES - len(ranges)) for ranges in rows]
    return np.array(filled, np.int32)


def _padded(rows: list[list[int]], idle: Int32Array) -> Int32Array:
    """[rows, longest] of the ids, padded with -1; `idle` when there are none."""
    longest = max(map(len, rows), default=0)
    if longest == 0:
        return idle
    return np.array([ids + [-1] * (longest - len(ids)) for ids in rows], np.int32)


def stacked(lists: Sequence[Int32Array]) -> Int32Array:
    """Lists of ids ``[rows, n]`` one below the other, padded with -1 to the longest."""
    longest = max(ids.shape[1] for ids in lists)
    padded = [
        ids
        if ids.shape[1] == longest
        else np.pad(ids, ((0, 0), (0, longest - ids.shape[1])), constant_values=-1)
        for ids in lists
    ]
    return np.concatenate(padded)


def make_rules(
    *,
    repetition_penalty: float = 1.0,
    no_repeat_ngram_size: int = 0,
    suppress_begin: Sequence[int] = (),
    timestamps: Timestamps | None = None,
) -> Rules:
    """The rules that the options of a request ask for, in the reference's order."""
    rules: list[Rule] = []
    if repetition_penalty != 1:
        rules.append(RepetitionPenalty())
    if no_repeat_ngram_size > 0:
        rules.append(NoRepeatNgram(no_repeat_ngram_size))
    if suppress_begin:
        rules.append(SuppressBegin(suppress_begin))
    if timestamps is not None:
        rules.append(timestamps)
    return Rules(rules)


def fixed_bans(
    suppress_tokens: Iterable[int],
    default: Sequence[int],
    n_vocab: int,
    no_timestamps: int | None = None,
) -> list[int]:
    """Ids banned at every step, sorted: the decoder gets them once, when the request starts.

    `suppress_tokens` is the option: -1 stands for `default` (suppress_ids of the model's
    config.json), other negative ids are ignored. `no_timestamps` is the id of <|notimestamps|>
    where the timestamp rule is on, else None.

    Raises ValueError for an id outside of the vocabulary.
    """
    banned: set[int] = set()
    for token in suppress_tokens:
        if token >= n_vocab:
            raise ValueError(
                f"suppress_tokens contains {token}, but the vocabulary of this model ends at "
                f"{n_vocab - 1}: remove that id, or take it from this model's own tokenizer"
            )
        if token >= 0:
            banned.add(token)
        elif token == -1:
            banned.update(default)
    if no_timestamps is not None:
        banned.add(no_timestamps)
    return sorted(banned)
