"""What the decoders of all devices do alike; the graphs are replaced."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import pytest
from max.driver import CPU, Buffer
from max.dtype import DType

from whisper_max_backend.engine.checkpoint.dimensions import Dimensions
from whisper_max_backend.engine.search.protocol import (
    Candidates,
    Float32Array,
    Int32Array,
    Sampling,
    StepRequest,
)
from whisper_max_backend.engine.search.rules import FixedRules, make_rules
from whisper_max_backend.engine.state.alignment_request import AlignmentRequest, Alignments
from whisper_max_backend.engine.state.decoder import Decoder
from whisper_max_backend.engine.state.decoder_state import DecoderState
from whisper_max_backend.engine.state.kv_cache import KVAllocation, KVLayout, SharedKVAllocator
from whisper_max_backend.engine.state.step_batch import Prompt, Step

FRAMES, CONTEXT, STATE = 3, 4, 2
DIMENSIONS = Dimensions(80, FRAMES, STATE, 1, 1, 50, CONTEXT, STATE, 1, 2)
LAYOUT = KVLayout(
    CPU(),
    lambda frames, windows: (DType.float32, (2, windows, frames, STATE)),
    lambda slots: (DType.float32, (2, 2, slots, CONTEXT, STATE)),
    slot_axis=2,
)
RULES = FixedRules(np.array([7], np.int32), 1.5)


class Replaced(Decoder):
    """Keeps the encoder's output as the cross KV, and notes what its graphs would be asked."""

    def __init__(self) -> None:
        super().__init__({}, DIMENSIONS, CPU(), LAYOUT)
        self.filled: list[int] = []
        self.asked: list[Any] = []
        self.fails = False

    def _fill_cross_kv(self, allocation: KVAllocation, encoded: Buffer) -> None:
        if self.fails:
            raise RuntimeError("out of memory")
        self.filled.append(int(encoded.shape[0]))
        allocation.buffers.cross_kv.to_numpy()[:, allocation.windows] = encoded.to_numpy()

    def prefill_together(self, prompts: Sequence[Prompt]) -> None:
        self.asked.extend(prompt.tokens.tolist() for prompt in prompts)

    def prompt_kind(self, prompt: Prompt) -> Hashable:
        return None

    def kind(self, step: Step) -> Hashable:
        return None

    def step_together(self, steps: Sequence[Step]) -> list[Candidates]:
        self.asked.append(steps)
        zeros = np.zeros((1, 1), np.int32)
        return [Candidates(zeros, zeros, zeros.astype(np.float32))]

    def align(self, encoded: Buffer, request: AlignmentRequest) -> Alignments:
        raise NotImplementedError

    def _probabilities(
        self, state: DecoderState, position: int, ids: Int32Array, limit: int
    ) -> Float32Array:
        assert state.frames == FRAMES
        assert ids.dtype == np.int32
        self.asked.append((position, ids.tolist(), limit))
        return (ids[:, 0] / 100).astype(np.float32)


@pytest.fixture
def decoder() -> Replaced:
    return Replaced()


@pytest.fixture
def shared(decoder: Replaced) -> Replaced:
    """One whose requests share buffers."""
    turn: Any = threading.Condition()
    turn.acquire()
    decoder.allocator = SharedKVAllocator(LAYOUT, turn)
    return decoder


def encoded(items: int, first: float = 1) -> Buffer:
    """Encoder output ``[items, FRAMES, STATE]``, other numbers in each item."""
    numbers = first + np.arange(items, dtype=np.float32)[:, None, None]
    return Buffer.from_numpy(np.broadcast_to(numbers, (items, FRAMES, STATE)).copy())


def windows_of(state: DecoderState) -> list[float]:
    """A number of each window, which all of it has."""
    windows = state.allocation.buffers.cross_kv.to_numpy()[:, state.windows]
    assert (windows == windows[:1, :, :1, :1]).all()
    return [float(number) for number in windows[0, :, 0, 0]]


def request_of(rows: int) -> StepRequest:
    return StepRequest(
        tokens=np.zeros(rows, np.int32),
        scores=np.zeros(rows, np.float32),
        constraints=make_rules().constraints([[]] * rows, [0] * rows),
        beams=1,
        candidates=1,
        sampling=Sampling(),
    )


def test_buffers_of_a_request_alone_are_filled_at_once(decoder: Replaced) -> None:
    state = decoder.start(encoded(3), RULES, rows_per_item=2)
    assert decoder.filled == [3]
    assert windows_of(state) == [1, 2, 3]
    assert (state.frames, state.rules, state.left) == (FRAMES, RULES, CONTEXT)
    assert state.allocation.slots.tolist() == [0, 1, 2, 3, 4, 5]
    assert len(decoder.start(encoded(3), RULES).allocation.slots) == 3
    assert decoder.n_vocab == 50


def test_windows_are_filled_at_once_among_those_of_others(shared: Replaced) -> None:
    first = shared.start(encoded(2), RULES)
    second = shared.start(encoded(2, first=10), RULES)
    assert shared.filled == [2, 2]
    assert (windows_of(first), windows_of(second)) == ([1, 2], [10, 11])
    assert first.allocation.buffers is second.allocation.buffers


def test_what_a_request_had_is_for_others_when_it_is_done_or_fails(shared: Replaced) -> None:
    first = shared.start(encoded(2), RULES)
    kept = shared.start(encoded(2), RULES)
    shared.finish(first)
    shared.fails = True
    with pytest.raises(RuntimeError, match="out of memory"):
        shared.start(encoded(2), RULES)
    shared.fails = False
    again = shared.start(encoded(2), RULES)
    assert again.allocation.windows.tolist() == first.allocation.windows.tolist()
    assert again.allocation.slots.tolist() == first.allocation.slots.tolist()
    assert not set(again.allocation.slots) & set(kept.allocation.slots)


def test_a_step_advances_and_is_executed_alone(decoder: Replaced) -> None:
    state, request = decoder.start(encoded(2), RULES), request_of(2)
    for position in range(CONTEXT):
        found = decoder.step(state, request)
        assert isinstance(found, Candidates)
        ((step,),) = decoder.asked
        decoder.asked.clear()
        assert step.state is state
        assert step.request is request
        assert step.positions.tolist() == [position] * 2
    with pytest.raises(RuntimeError, match="No position encodings"):
        decoder.step(state, request)


def test_a_prompt_advances(decoder: Replaced) -> None:
    state = decoder.start(encoded(2), RULES)
    prompt = decoder.next_prompt(state, np.array([[5, 6], [7, 8]], np.int32))
    assert (prompt.state, prompt.positions.tolist(), state.left) == (state, [0, 0], CONTEXT - 2)
    with pytest.raises(RuntimeError, match="No position encodings"):
        decoder.prefill(state, np.zeros((2, CONTEXT - 1), np.int32))
    assert decoder.asked == []
    decoder.prefill(state, np.array([[9], [9]], np.int32))
    assert (decoder.asked, state.left) == ([[[9], [9]]], CONTEXT - 3)


def test_a_probability_of_the_prefill_is_over_the_vocabulary(decoder: Replaced) -> None:
    state = decoder.start(encoded(2), RULES)
    assert decoder.prefill_probability(state, 3, 20).tolist() == pytest.approx([0.2, 0.2])
    assert decoder.asked == [(3, [[[20]], [[20]]], 50)]


def test_languages_are_weighed_against_each_other(shared: Replaced) -> None:
    """In buffers of their own, after the start token, over the languages alone."""
    found = shared.language_probabilities(encoded(2), 5, [10, 11, 12])
    np.testing.assert_allclose(found, [[0.1, 0.11, 0.12]] * 2)
    assert shared.asked == [[[5], [5]], (0, [[[10, 11, 12]]] * 2, 0)]
    assert shared.filled == [2]
    assert shared.start(encoded(1), RULES).allocation.windows.tolist() == [0]


def test_what_a_device_has_to_bring() -> None:
    assert Decoder.__abstractmethods__ == {
        *("prompt_kind", "prefill_together", "kind", "step_together"),
        *("align", "_fill_cross_kv", "_probabilities"),
    }
