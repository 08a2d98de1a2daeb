"""How many steps a decoder may run before the search looks at them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from compat_tests.support.decoding_case import DecodingCase
from compat_tests.support.numpy_decoder import NumpyDecoder, NumpyState
from whisper_max_backend.engine.search.protocol import Candidates, Lookahead, StepRequest


class Eager(NumpyDecoder):
    """Notes how far it may go on, and does not."""

    steps_ahead = 8

    def __init__(self, model: DecodingCase) -> None:
        super().__init__(model.decoder.weights, model.ids["<|endoftext|>"], model.ids["<|0.00|>"])
        self.asked: list[Lookahead | None] = []
        self.candidates: set[int] = set()

    def step(self, state: NumpyState, request: StepRequest) -> Candidates:
        self.asked.append(request.lookahead)
        self.candidates.add(request.candidates)
        return super().step(state, request)


@pytest.mark.parametrize(
    ("options", "remaining"),
    [
        ({"beam_size": 1}, 1),
        ({"beam_size": 2}, 2),
        ({"beam_size": 3, "patience": 2.0}, 6),
        ({"beam_size": 3, "length_penalty": 0.0}, 1),
    ],
    ids=str,
)
def test_how_far_a_decoder_may_go_on(
    one_model: DecodingCase, options: dict[str, Any], remaining: int
) -> None:
    """From the first step after the prefix on, and never past the last step."""
    eager = Eager(one_model)
    case = replace(one_model, decoder=eager)
    eot, prompts = one_model.ids["<|endoftext|>"], [one_model.prompt(40)] * 2
    # Nothing ends, so that the number of steps is known: max_length // 2.
    case.generate(prompts, max_length=40, suppress_tokens=[-1, eot], **options)
    assert eager.asked[0] is None
    steps = [ahead.steps if ahead else 1 for ahead in eager.asked[1:]]
    assert steps == [min(8, left) for left in range(len(steps), 0, -1)]
    assert len(steps) == 18
    beam_size = options["beam_size"]
    assert eager.candidates == {2 * beam_size if beam_size > 1 else 1}, "no more than are used"
    for ahead in eager.asked[1:-1]:
        assert ahead is not None
        assert ahead.remaining.tolist() == [remaining] * 2
        assert (ahead.eot, ahead.timed) == (eot, False)
        assert ahead.summed == (options["beam_size"] > 1)
        assert len(ahead.last_timestamps) == 2 * options["beam_size"]


@pytest.mark.parametrize(
    "options",
    [
        {"sampling_topk": 0},
        {"return_logits_vocab": True},
        {"repetition_penalty": 1.1},
        {"no_repeat_ngram_size": 3},
    ],
    ids=str,
)
def test_where_a_decoder_may_not_go_on(one_model: DecodingCase, options: dict[str, Any]) -> None:
    eager = Eager(one_model)
    prompts = [one_model.prompt()]
    replace(one_model, decoder=eager).generate(prompts, beam_size=1, max_length=20, **options)
    assert eager.asked
    assert not any(eager.asked)


def test_a_decoder_that_goes_on_is_told_the_timestamps(one_model: DecodingCase) -> None:
    eager = Eager(one_model)
    prompts = [one_model.prompt(timestamps=True)]
    replace(one_model, decoder=eager).generate(prompts, beam_size=2, max_length=20)
    told = [ahead for ahead in eager.asked if ahead is not None]
    assert told
    assert all(ahead.timed for ahead in told)
    assert all((ahead.last_timestamps[:, 0] >= one_model.first_timestamp).all() for ahead in told)
