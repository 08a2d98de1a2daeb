"""Every decoding rule against a word-by-word reading of what it is to do, over a tiny vocabulary.

Ids 0-9 are text, 10 is <|endoftext|>, 11-13 are other special tokens and 14-25 timestamps.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from whisper_max_backend.engine.search.rules import (
    Constraints,
    NoRepeatNgram,
    RepetitionPenalty,
    Rule,
    SuppressBegin,
    Timestamps,
    Verdict,
    fixed_bans,
    make_rules,
)

EOT, FIRST, END = 10, 14, 26
VOCABULARY = range(END)
TIMES = Timestamps(EOT, FIRST, END, max_initial=3)

tokens = st.integers(0, END - 1)
# Few distinct ids, so that n-grams and timestamps do repeat.
histories = st.lists(st.sampled_from([0, 1, 2, EOT, 14, 15, 18, 25]), max_size=14)


SHORT = [
    list(history)
    for length in range(5)
    for history in itertools.product((1, EOT, FIRST, FIRST + 1), repeat=length)
]
"""Every text of so few tokens."""


def verdict_of(rule: Rule, history: Sequence[int], begin: int = 0) -> Verdict:
    verdict = Verdict()
    rule(list(history), begin, verdict)
    return verdict


def banned_by(rule: Rule, history: Sequence[int], begin: int = 0) -> set[int]:
    verdict = verdict_of(rule, history, begin)
    assert len(verdict.ranges) <= 2
    assert all(0 <= low < high <= END for low, high in verdict.ranges)
    return set(verdict.banned).union(*(range(low, high) for low, high in verdict.ranges))


@st.composite
def histories_with_prefix(draw: st.DrawFn) -> tuple[list[int], int]:
    history = draw(histories)
    return history, draw(st.integers(0, len(history) + 2))


@given(histories)
def test_repetition_penalty_names_every_past_id_once(history: list[int]) -> None:
    penalized = verdict_of(RepetitionPenalty(), history).penalized
    assert len(penalized) == len(set(penalized))
    assert set(penalized) == set(history)


def assert_no_ngram_comes_twice(history: list[int], size: int) -> None:
    def repeats(token: int) -> bool:
        grown = [*history, token]
        past = [history[i : i + size] for i in range(len(history) - size + 1)]
        return len(grown) >= size and grown[-size:] in past

    expected = {token for token in VOCABULARY if repeats(token)}
    assert banned_by(NoRepeatNgram(size), history) == expected


@given(histories, st.integers(1, 5))
def test_no_ngram_comes_twice(history: list[int], size: int) -> None:
    assert_no_ngram_comes_twice(history, size)


@pytest.mark.parametrize("size", range(1, 5))
def test_no_ngram_comes_twice_in_a_short_text(size: int) -> None:
    for history in SHORT:
        assert_no_ngram_comes_twice(history, size)


@given(histories_with_prefix(), st.lists(tokens, max_size=4))
def test_suppress_begin_bans_at_the_first_free_step(
    case: tuple[list[int], int], ids: list[int]
) -> None:
    history, begin = case
    expected = set(ids) if len(history) == begin else set()
    assert banned_by(SuppressBegin(ids), history, begin) == expected


def is_time(token: int) -> bool:
    return token >= FIRST


def timestamps_as_specified(history: list[int], begin: int, max_initial: int) -> set[int]:
    """Bans token by token, from the wording of the rule."""
    if not history and begin == 0:
        return {t for t in VOCABULARY if not is_time(t) or t > FIRST + max_initial}
    sampled = history[begin:]
    if not sampled:
        return set()
    *before, last = sampled
    if is_time(last):
        penultimate = before[-1] if before else last
        if is_time(penultimate):
            return {t for t in VOCABULARY if is_time(t)}
        return {t for t in VOCABULARY if t < EOT or FIRST <= t < last}
    times = [t for t in before if is_time(t)]
    return {t for t in VOCABULARY if is_time(t) and times and t <= times[-1]}


def assert_timestamps(history: list[int], begin: int, max_initial: int) -> None:
    rule = Timestamps(EOT, FIRST, END, max_initial)
    expected = timestamps_as_specified(history, begin, max_initial)
    assert banned_by(rule, history, begin) == expected
    sampled = history[begin:]
    pair = len(sampled) > 0 and is_time(sampled[-1]) and all(map(is_time, sampled[-2:]))
    verdict = verdict_of(TIMES, history, begin)
    assert verdict.check_timestamps == (len(sampled) > 0 and not pair), "weighed unless paired"


@given(histories_with_prefix(), st.integers(0, END))
def test_timestamps(case: tuple[list[int], int], max_initial: int) -> None:
    assert_timestamps(*case, max_initial)


@pytest.mark.parametrize("max_initial", [0, 3, END - FIRST - 2, END - FIRST - 1, END])
def test_timestamps_of_a_short_text(max_initial: int) -> None:
    for history in SHORT:
        for begin in range(len(history) + 2):
            assert_timestamps(history, begin, max_initial)


@pytest.mark.parametrize(
    ("history", "allowed"),
    [
        ([], {14, 15, 16, 17}),  # an early timestamp opens the text
        ([14], {*range(14)}),  # then no second one
        ([14, 3], {*range(14), *range(15, 26)}),  # text, or a later timestamp
        ([14, 3, 18], {10, 11, 12, 13, *range(18, 26)}),  # its pair, or the end
        ([14, 3, 18, 18], {*range(14)}),  # text follows a pair
        ([14, 3, 25, 25, 4], {*range(14)}),  # no timestamp is left
    ],
)
def test_timestamps_of_a_typical_text(history: list[int], allowed: set[int]) -> None:
    assert set(VOCABULARY) - banned_by(TIMES, history) == allowed


def test_timestamps_in_a_prefix_are_not_looked_at() -> None:
    assert banned_by(TIMES, [20, 3, 4], begin=2) == set()
    assert banned_by(TIMES, [20, 3, 4], begin=0) == set(range(14, 21))


@given(st.lists(histories_with_prefix(), min_size=1, max_size=5), st.integers(0, 3))
def test_constraints_hold_the_verdicts_of_all_rows(
    rows: list[tuple[list[int], int]], size: int
) -> None:
    rules = make_rules(
        repetition_penalty=1.1, no_repeat_ngram_size=size, suppress_begin=[3, 4], timestamps=TIMES
    )
    found = rules.constraints([history for history, _ in rows], [begin for _, begin in rows])
    assert found.ranges.shape == (len(rows), 2, 2)
    for array in (found.ranges, found.banned, found.penalized, found.check_timestamps):
        assert array.dtype == np.int32
        assert len(array) == len(rows)
    for row, (history, begin) in enumerate(rows):
        expected = Verdict()
        for rule in rules.rules:
            rule(history, begin, expected)
        ranges = [(low, high) for low, high in found.ranges[row].tolist() if low < high]
        assert ranges == expected.ranges
        assert [t for t in found.banned[row].tolist() if t >= 0] == expected.banned
        assert [t for t in found.penalized[row].tolist() if t >= 0] == expected.penalized
        assert bool(found.check_timestamps[row]) == expected.check_timestamps


def test_no_rules_no_constraints() -> None:
    rules = make_rules()
    assert rules.rules == ()
    found = rules.constraints([[1, 2], [3, 4]], [0, 0])
    assert not found.ranges.any()
    assert not found.check_timestamps.any()
    assert found.banned.shape == found.penalized.shape == (2, 0)


@given(st.lists(histories_with_prefix(), min_size=1, max_size=5))
def test_stamps_are_the_last_timestamps_and_where_they_are(
    rows: list[tuple[list[int], int]],
) -> None:
    rules = make_rules(suppress_begin=[3, 4], timestamps=TIMES)
    stamps = rules.last_timestamps([history for history, _ in rows], [begin for _, begin in rows])
    if any(len(history) <= begin for history, begin in rows):
        assert stamps is None
        return
    assert stamps is not None
    for (history, begin), (latest, at_end) in zip(rows, stamps.tolist(), strict=True):
        assert latest == ([-1] + [t for t in history[begin:] if is_time(t)])[-1]
        assert at_end == is_time(history[-1])


def test_stamps_where_other_rules_have_no_say() -> None:
    plain = make_rules().last_timestamps([[1, 20]], [0])
    assert plain is not None
    assert plain.tolist() == [[0, 0]]
    for options in ({"repetition_penalty": 1.1}, {"no_repeat_ngram_size": 1}):
        assert make_rules(timestamps=TIMES, **options).last_timestamps([[1]], [0]) is None


@given(st.lists(histories_with_prefix(), min_size=2, max_size=4))
def test_constraints_of_several_requests_are_those_of_each(
    rows: list[tuple[list[int], int]],
) -> None:
    rules = make_rules(repetition_penalty=1.1, no_repeat_ngram_size=1, timestamps=TIMES)
    apart = [rules.constraints([history], [begin]) for history, begin in rows]
    together = Constraints.joined(apart)
    for row, own in enumerate(apart):
        assert together.ranges[row].tolist() == own.ranges[0].tolist()
        assert together.check_timestamps[row] == own.check_timestamps[0]
        for name in ("banned", "penalized"):
            (expected,), found = getattr(own, name).tolist(), getattr(together, name)[row].tolist()
            assert found == expected + [-1] * (len(found) - len(expected))
    assert Constraints.joined(apart[:1]) is apart[0]


def test_fixed_bans() -> None:
    assert fixed_bans([], [5], 100) == []
    assert fixed_bans([], [5], 100, no_timestamps=13) == [13]
    assert fixed_bans([7, -1, 7, -2], [5, 3], 100) == [3, 5, 7]


def test_fixed_bans_outside_of_the_vocabulary() -> None:
    with pytest.raises(ValueError, match="suppress_tokens contains 100, .* ends at 99:"):
        fixed_bans([100], [], 100)
    assert fixed_bans([0, 99], [], 100) == [0, 99]
