"""What a request keeps between its steps, and how steps of several requests are joined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from max.driver import Buffer

from whisper_max_backend.engine.search.protocol import Candidates, Lookahead, Sampling, StepRequest
from whisper_max_backend.engine.search.rules import FixedRules, make_rules
from whisper_max_backend.engine.state.decoder_state import DecoderState, StepAhead
from whisper_max_backend.engine.state.kv_cache import KVAllocation, KVBuffers
from whisper_max_backend.engine.state.step_batch import (
    Step,
    joined,
    joined_lookahead,
    keep_steps_ahead,
    split_candidates,
)

CONTEXT = 10
VOCABULARY = 7
RULES = make_rules()


def state_of(slots: Sequence[int], windows: Sequence[int] = (0,)) -> DecoderState:
    """A request with these slots, and a row for each window."""
    part = KVAllocation(KVBuffers(), np.array(windows, np.int32), np.array(slots, np.int32))
    return DecoderState(part, frames=50, n_text_ctx=CONTEXT, rules=FixedRules())


def step_of(state: DecoderState, beams: int, ahead: Lookahead | None = None, **asked: Any) -> Step:
    """A step of a request, with a token for each of its rows."""
    rows = len(state.windows)
    request = StepRequest(
        tokens=np.arange(rows, dtype=np.int32),
        scores=np.zeros(rows, np.float32),
        constraints=RULES.constraints([[]] * rows, [0] * rows),
        beams=beams,
        candidates=2,
        sampling=Sampling(),
        lookahead=ahead,
    )
    positions = np.full(rows, state.position, np.int32)
    return Step(state, positions, replace(request, **asked))


def numbered(items: int, first: int = 0) -> Candidates:
    """Two candidates for each item, all of them different."""
    numbers = first + np.arange(2 * items, dtype=np.int32).reshape(items, 2)
    return Candidates(numbers, numbers + 100, (numbers / 4).astype(np.float32))


def assert_items(found: Candidates, expected: Candidates, items: slice) -> None:
    for name in ("tokens", "origins", "scores"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name)[items])


# One request


def test_rows_write_to_their_own_slots_and_read_their_ancestors() -> None:
    """Three tokens of two windows, whose second then has three hypotheses."""
    state = state_of(slots=[4, 6, 5], windows=[2, 3])
    assert state.advance(3).tolist() == [0, 0]
    assert state.slot_table[:, :3].tolist() == [[4] * 3, [6] * 3]
    assert (state.position, state.left) == (3, CONTEXT - 3)
    state.reorder(np.array([1, 1, 1], np.int32))
    assert state.windows.tolist() == [3, 3, 3]
    assert state.advance(1).tolist() == [3, 3, 3]
    assert state.slot_table[:, :4].tolist() == [[6, 6, 6, 4], [6, 6, 6, 6], [6, 6, 6, 5]]
    state.reorder(np.array([2], np.int32))
    assert state.advance(2).tolist() == [4]
    assert state.slot_table[:, :6].tolist() == [[6, 6, 6, 5, 4, 4]]


def test_a_context_can_be_filled_and_not_more() -> None:
    state = state_of([0])
    state.advance(CONTEXT - 1)
    with pytest.raises(RuntimeError, match=rf"positions >= {CONTEXT}, but got position {CONTEXT}:"):
        state.advance(2)
    assert state.advance(1).tolist() == [CONTEXT - 1]
    assert state.left == 0


def test_foreseen_steps_are_handed_out_in_their_order() -> None:
    state = state_of([0, 1], [0, 0])
    first, second = numbered(1), numbered(1, 50)
    state.keep_ahead(
        [StepAhead([7, 8], [0, 1], [0, 1], first), StepAhead([9, 9], [1, 0], [0, 1], second)]
    )
    assert state.take_ahead([7, 8]) is first
    assert state.position == 1
    state.reorder(np.array([1, 0], np.int32))
    assert state.take_ahead([9, 9]) is second
    assert state.position == 2
    assert state.take_ahead([9, 9]) is None
    assert state.position == 2


@pytest.mark.parametrize(
    ("tokens", "rows"), [([7, 9], None), ([8, 7], None), ([7, 8], [1, 0]), ([7, 8], [0, 0])]
)
def test_another_step_than_the_foreseen_one_forgets_all(
    tokens: list[int], rows: list[int] | None
) -> None:
    state = state_of([0, 1], [0, 0])
    state.keep_ahead([StepAhead([7, 8], [0, 1], [0, 1], numbered(1))] * 2)
    if rows is not None:
        state.reorder(np.array(rows, np.int32))
    assert state.take_ahead(tokens) is None
    assert state.position == 0
    assert state.take_ahead([7, 8]) is None


def test_items_that_are_done_leave_what_was_foreseen_for_others() -> None:
    """Three items of two beams; the first leaves, then the last."""
    state = state_of([0, 1, 2, 3, 4, 5], [0, 0, 1, 1, 2, 2])
    foreseen = [numbered(3), numbered(3, 50), numbered(3, 90)]
    origins = [[0, 1, 2, 3, 4, 5], [1, 0, 3, 3, 5, 4], [0, 0, 3, 2, 4, 4]]
    tokens = [[1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12], [13, 14, 15, 16, 17, 18]]
    state.keep_ahead(map(StepAhead, tokens, origins, [list(range(6))] * 3, foreseen))
    assert state.take_ahead(tokens[0]) is foreseen[0]
    state.reorder(np.array([3, 3, 5, 4], np.int32))
    found = state.take_ahead([9, 10, 11, 12])
    assert found is not None
    assert_items(found, foreseen[1], slice(1, 3))
    state.reorder(np.array([1, 0], np.int32))
    found = state.take_ahead([15, 16])
    assert found is not None
    assert_items(found, foreseen[2], slice(1, 2))
    assert state.position == 3
    # Each wrote to the slot that it had when the steps were made.
    assert state.slot_table[:, :3].tolist() == [[3, 3, 2], [3, 2, 3]]


@pytest.mark.parametrize(("tokens", "rows"), [([9, 11], [3, 3]), ([9, 10], [2, 3]), ([9], [3])])
def test_items_that_go_elsewhere_when_others_are_done(tokens: list[int], rows: list[int]) -> None:
    state = state_of([0, 1, 2, 3], [0, 0, 1, 1])
    state.keep_ahead([StepAhead([7, 8, 9, 10], [0, 1, 3, 3], [0, 1, 2, 3], numbered(2))] * 2)
    state.reorder(np.array(rows, np.int32))
    assert state.take_ahead(tokens) is None
    assert state.take_ahead([9, 10]) is None


def test_rows_that_moved_before_a_step_do_not_count_after_it() -> None:
    state = state_of([0, 1], [0, 0])
    state.reorder(np.array([1, 0], np.int32))
    state.advance(1)
    found = numbered(1)
    state.keep_ahead([StepAhead([7, 8], [0, 1], [0, 1], found)])
    assert state.take_ahead([7, 8]) is found


def test_a_step_is_no_other_than_itself() -> None:
    state = state_of([0])
    assert step_of(state, 1) != step_of(state, 1)


# Several requests


def test_arrays_are_joined_one_below_the_other() -> None:
    one, two = np.array([[1, 2]]), np.array([[3, 4], [5, 6]])
    assert joined([one]) is one
    assert joined([one, two]).tolist() == [[1, 2], [3, 4], [5, 6]]


def ahead_of(rows: int, items: int, steps: int, first: int = 0, **other: Any) -> Lookahead:
    numbers = first + np.arange(2 * rows, dtype=np.int32).reshape(rows, 2)
    told = Lookahead(steps, numbers[:items, 0], numbers, eot=3, timed=True, summed=True)
    return replace(told, **other)


def test_requests_go_on_together_as_far_as_each_may() -> None:
    one, two = state_of([0, 1], [0, 0]), state_of([2, 3], [1, 1])
    steps = [step_of(one, 2, ahead_of(2, 1, 8)), step_of(two, 2, ahead_of(2, 1, 5, first=30))]
    found = joined_lookahead(steps)
    assert (found.steps, found.eot, found.timed, found.summed) == (5, 3, True, True)
    assert found.remaining.tolist() == [0, 30]
    assert found.last_timestamps.tolist() == [[0, 1], [2, 3], [30, 31], [32, 33]]
    alone = joined_lookahead(steps[:1])
    assert (alone.steps, alone.eot, alone.timed, alone.summed) == (8, 3, True, True)
    two.advance(CONTEXT - 2)  # two positions are left after that of the step itself
    assert joined_lookahead(steps).steps == 3


@pytest.mark.parametrize("other", [None, {"timed": False}, {"summed": False}])
def test_requests_that_differ_are_asked_at_every_step(other: dict[str, Any] | None) -> None:
    states = [state_of([0, 1], [0, 0]), state_of([2, 3, 4, 5], [1, 1, 2, 2])]
    told = None if other is None else ahead_of(4, 2, 8, **other)
    steps = [step_of(states[0], 2, ahead_of(2, 1, 8)), step_of(states[1], 2, told)]
    for ordered in (steps, steps[::-1]):
        found = joined_lookahead(ordered)
        assert (found.steps, found.eot) == (1, -1)
        assert not found.timed
        assert not found.summed
        assert found.remaining.tolist() == [0] * 3
        assert found.last_timestamps.tolist() == [[0, 0]] * 6


def test_each_request_foresees_its_own_part() -> None:
    """Two requests of one and two items with two beams, three steps ahead, one of them unused."""
    one, two = state_of([0, 1], [0, 0]), state_of([2, 3, 4, 5], [1, 1, 2, 2])
    steps = [step_of(one, 2), step_of(two, 2)]
    fed = np.array(
        [
            [[10, 1], [11, 0], [12, 3], [13, 2], [14, 4], [15, 5]],
            [[20, 0], [21, 1], [22, 2], [23, 3], [24, 5], [25, 4]],
            [[0, 0]] * 6,
        ],
        np.int32,
    )
    later = [numbered(3), numbered(3, 60)]
    keep_steps_ahead(steps, fed, later)
    one.reorder(np.array([1, 0], np.int32))
    two.reorder(np.array([1, 0, 2, 3], np.int32))
    for state, items, tokens in (
        (one, slice(0, 1), [10, 11]),
        (two, slice(1, 3), [12, 13, 14, 15]),
    ):
        found = state.take_ahead(tokens)
        assert found is not None
        assert_items(found, later[0], items)
    two.reorder(np.array([0, 1, 3, 2], np.int32))
    for state, items, tokens in (
        (one, slice(0, 1), [20, 21]),
        (two, slice(1, 3), [22, 23, 24, 25]),
    ):
        found = state.take_ahead(tokens)
        assert found is not None
        assert_items(found, later[1], items)
        assert state.take_ahead(tokens) is None


@pytest.mark.parametrize("logits", [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("watch", [(-1, -1), (0, -1), (-1, 5)])
def test_each_request_gets_what_it_asked_for(
    logits: tuple[bool, bool], watch: tuple[int, int]
) -> None:
    states = [state_of([0, 1], [0, 0]), state_of([2, 3, 4, 5], [1, 1, 2, 2])]
    steps = [
        step_of(state, 2, return_logits=wanted, watch=watched)
        for state, wanted, watched in zip(states, logits, watch, strict=True)
    ]
    candidates = numbered(3)
    probabilities = np.linspace(0, 1, 6, dtype=np.float32)
    ruled = np.arange(6 * VOCABULARY, dtype=np.float32).reshape(3, 2, VOCABULARY)
    found = split_candidates(
        steps, candidates, Buffer.from_numpy(probabilities), Buffer.from_numpy(ruled)
    )
    rows = (slice(0, 2), slice(2, 6))
    for number, items in enumerate((slice(0, 1), slice(1, 3))):
        assert_items(found[number], candidates, items)
        own_logits, own_watched = found[number].logits, found[number].watched
        if logits[number]:
            assert own_logits is not None
            np.testing.assert_array_equal(own_logits, ruled.reshape(6, VOCABULARY)[rows[number]])
        else:
            assert own_logits is None
        if watch[number] >= 0:
            assert own_watched is not None
            np.testing.assert_array_equal(own_watched, probabilities[rows[number]])
        else:
            assert own_watched is None


def test_a_plain_request_gets_candidates_alone() -> None:
    step = step_of(state_of([0, 1], [0, 0]), 2)
    logits = np.zeros((1, 2, VOCABULARY), np.float32)
    probabilities = np.zeros(2, np.float32)
    (found,) = split_candidates(
        [step], numbered(1), Buffer.from_numpy(probabilities), Buffer.from_numpy(logits)
    )
    assert found.logits is None
    assert found.watched is None
    assert_items(found, numbered(1), slice(0, 1))
