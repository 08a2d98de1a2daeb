"""The searches over a numpy decoder against the reference on the same model and audio."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import ctranslate2
import numpy as np
import pytest

from compat_tests.support.decoding_case import BATCH, DecodingCase, load_case
from compat_tests.support.numpy_decoder import NumpyDecoder, NumpyState
from whisper_max_backend.engine.search.options import SearchOptions
from whisper_max_backend.engine.search.protocol import Candidates, StepRequest
from whisper_max_backend.engine.search.rules import FixedRules, make_rules
from whisper_max_backend.engine.search.run import run_search


@pytest.fixture(scope="module", params=[0, 5])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> DecodingCase:
    return load_case(tmp_path_factory.mktemp("miniature"), request.param)


BEAM_OPTIONS: list[dict[str, Any]] = [
    {},
    {"patience": 2.0},
    {"patience": 0.5},
    {"patience": 1.5, "num_hypotheses": 7},
    {"num_hypotheses": 5},
    {"length_penalty": 0.0},
    {"length_penalty": 0.0, "num_hypotheses": 3},
    {"length_penalty": 0.6},
    {"length_penalty": -1.0},
    {"return_scores": False, "num_hypotheses": 2},
]
COMMON_OPTIONS: list[dict[str, Any]] = [
    {"repetition_penalty": 1.4},
    {"repetition_penalty": 0.8},
    {"no_repeat_ngram_size": 1},
    {"no_repeat_ngram_size": 2},
    {"no_repeat_ngram_size": 3, "repetition_penalty": 1.1, "suppress_tokens": [30, -1, 31, -7]},
    {"suppress_tokens": None},
    {"suppress_tokens": [], "suppress_blank": False},
    {"max_initial_timestamp_index": 0},
    {"max_initial_timestamp_index": 5000},
    {"max_length": 30},
    {"max_length": 7},
]


@pytest.mark.parametrize("timestamps", [False, True])
@pytest.mark.parametrize("options", BEAM_OPTIONS + COMMON_OPTIONS, ids=str)
def test_beam_search(model: DecodingCase, options: dict[str, Any], timestamps: bool) -> None:
    prompts = [model.prompt(timestamps=timestamps)] * BATCH
    model.check(prompts, **{"max_length": 120, "beam_size": 5, **options})


@pytest.mark.parametrize("timestamps", [False, True])
@pytest.mark.parametrize(
    "options", [{}, {"length_penalty": 0.0}, {"length_penalty": 0.6}, *COMMON_OPTIONS], ids=str
)
def test_greedy_search(model: DecodingCase, options: dict[str, Any], timestamps: bool) -> None:
    prompts = [model.prompt(timestamps=timestamps)] * BATCH
    model.check(prompts, **{"max_length": 120, "beam_size": 1, **options})


@pytest.mark.parametrize("beam_size", [1, 5])
@pytest.mark.parametrize("timestamps", [False, True])
@pytest.mark.parametrize(
    "texts",
    [[(40,)], [(40, 50, 60), (41, 51, 61)], [(), (40,), (41, 51, 61, 71)], [(1,), (2, 3), (4,)]],
    ids=str,
)
def test_prefixes(
    model: DecodingCase, texts: list[tuple[int, ...]], timestamps: bool, beam_size: int
) -> None:
    prompts = [model.prompt(*text, timestamps=timestamps) for text in texts]
    model.check(
        prompts,
        beam_size=beam_size,
        num_hypotheses=beam_size,
        max_length=100,
        repetition_penalty=1.1,
        no_repeat_ngram_size=2,
    )


@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
@pytest.mark.parametrize("num_hypotheses", [1, 2, 3])
@pytest.mark.parametrize("choice", range(6))
def test_few_words(
    one_model: DecodingCase, choice: int, num_hypotheses: int, length_penalty: float
) -> None:
    """With ten words to choose from, beams end at every step and have to be replaced."""
    eot = one_model.ids["<|endoftext|>"]
    words = np.random.default_rng(choice).choice(range(40, eot), 10, replace=False).tolist()
    others = sorted({*range(one_model.decoder.n_vocab)} - {*words, eot})
    for texts in (((), (), ()), ((40,), (41, 51), ())):
        one_model.check(
            [one_model.prompt(*text) for text in texts],
            beam_size=3,
            num_hypotheses=num_hypotheses,
            length_penalty=length_penalty,
            max_length=60,
            suppress_tokens=others,
            suppress_blank=False,
        )


@pytest.mark.parametrize("texts", [((), ()), ((), (40,)), ((40,), (41,))], ids=str)
def test_early_end_in_a_secondary_beam(
    one_model: DecodingCase, texts: tuple[tuple[int, ...], ...]
) -> None:
    """It is held back at the first free step, if any item of the batch has a prefix."""
    model = one_model
    eot = model.ids["<|endoftext|>"]
    prompts = [model.prompt(*text) for text in texts]
    options: dict[str, Any] = {"suppress_blank": False, "max_length": 40}
    for item, text in enumerate(texts):
        (greedy,) = replace(model, encoded=model.encoded[item : item + 1]).generate(
            prompts[item : item + 1], beam_size=1, return_logits_vocab=True, **options
        )
        order = np.argsort(-greedy.logits[0][len(text)][: eot + 1]).tolist()
        rank = order.index(eot)
        words = [*order[rank - 1 : rank], *order[rank + 1 : rank + 12]]
        others = sorted({*range(model.decoder.n_vocab)} - {*words, eot})
        model.check(
            prompts,
            beam_size=3,
            num_hypotheses=3,
            length_penalty=0.0,
            suppress_tokens=others,
            **options,
        )


@pytest.mark.parametrize("beam_size", [1, 3])
def test_prefix_with_timestamps_and_end(one_model: DecodingCase, beam_size: int) -> None:
    """Forced timestamps are not seen by the rule; a forced <|endoftext|> ends nothing."""
    first, eot = one_model.first_timestamp, one_model.ids["<|endoftext|>"]
    texts = [(first + 9, 40, 50), (40, eot, 50), (40, first + 20, 41, eot)]
    prompts = [one_model.prompt(*text, timestamps=True) for text in texts]
    one_model.check(prompts, beam_size=beam_size, max_length=80)
    prompts[0] = one_model.prompt(40, timestamps=True)  # now the others leave their prefix later
    one_model.check(prompts, beam_size=beam_size, max_length=80)


@pytest.mark.parametrize("beam_size", [1, 3])
@pytest.mark.parametrize("lengths", [(6, 6), (5, 2), (0, 9), (9, 9)])
def test_prefix_reaches_max_length(
    one_model: DecodingCase, beam_size: int, lengths: tuple[int, int]
) -> None:
    prompts = [one_model.prompt(*range(40, 40 + length)) for length in lengths]
    one_model.check(prompts, beam_size=beam_size, num_hypotheses=beam_size, max_length=12)


@pytest.mark.parametrize("beam_size", [1, 2, 4])
@pytest.mark.parametrize("batch", [1, BATCH])
def test_previous_text(model: DecodingCase, beam_size: int, batch: int) -> None:
    """Text before <|startoftranscript|> fills the caches and is seen by no rule."""
    prompts = [model.prompt(40, previous=(33, 34, 35, 36), timestamps=True)] * batch
    model.check(prompts, beam_size=beam_size, max_length=90, no_repeat_ngram_size=1)


@pytest.mark.parametrize("beam_size", [1, 5])
@pytest.mark.parametrize("text", [(), (40, 50)])
def test_bare_start_of_transcript(
    model: DecodingCase, beam_size: int, text: tuple[int, ...]
) -> None:
    """English-only prompts: the no-speech probability comes from the search itself."""
    prompts = [[model.ids["<|startoftranscript|>"], *text]] * BATCH
    model.check(prompts, beam_size=beam_size, max_length=60, return_no_speech_prob=True)


def test_no_speech_probability_of_samples(one_model: DecodingCase) -> None:
    """It is each item's own. (The reference takes that of the i-th row, not of the i-th item.)"""
    prompt = [one_model.ids["<|startoftranscript|>"]]
    options: dict[str, Any] = {
        "beam_size": 1,
        "num_hypotheses": 2,
        "sampling_topk": 3,
        "max_length": 8,
        "return_no_speech_prob": True,
    }
    encoded = ctranslate2.StorageView.from_array(one_model.encoded)
    expected = one_model.reference.generate(
        encoded, [prompt] * BATCH, beam_size=1, max_length=8, return_no_speech_prob=True
    )
    found = one_model.generate([prompt] * BATCH, **options)
    assert [result.watched for result in found] == pytest.approx(
        [result.no_speech_prob for result in expected], rel=1e-4
    )


@pytest.mark.parametrize("beam_size", [1, 5])
def test_no_room_for_text(one_model: DecodingCase, beam_size: int) -> None:
    """A prompt that exceeds max_length gives empty results instead of an error."""
    prompts = [one_model.prompt(40, previous=(33,) * 8)] * 2
    one_model.check(prompts, beam_size=beam_size, max_length=5)


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, -1.0])
@pytest.mark.parametrize("beam_size", [1, 2])
def test_empty_hypotheses(one_model: DecodingCase, length_penalty: float, beam_size: int) -> None:
    """Divisions by a power of zero give what C++ gives, not an exception."""
    eot = one_model.ids["<|endoftext|>"]
    one_model.check(
        [one_model.prompt()] * 2,
        beam_size=beam_size,
        suppress_tokens=[token for token in range(one_model.decoder.n_vocab) if token != eot],
        suppress_blank=False,
        length_penalty=length_penalty,
    )


@pytest.mark.parametrize("beam_size", [1, 2])
def test_a_text_longer_than_whispers(one_model: DecodingCase, beam_size: int) -> None:
    """224 tokens are half of Whisper's context; a search stops where it is told to."""
    eot, length = one_model.ids["<|endoftext|>"], 300
    state = one_model.decoder.start(one_model.encoded[:1], FixedRules(np.array([eot], np.int32)))
    options = SearchOptions(beam_size=beam_size, max_length=length, patience=2.0)
    prompts = [one_model.prompt()]
    (found,) = run_search(one_model.decoder, state, prompts, eot, options, make_rules())
    assert [len(sequence) for sequence in found.sequences] == [length + len(prompts[0]) - 4]


@pytest.mark.parametrize("beam_size", [1, 2])
@pytest.mark.parametrize("text", [(), (40, 50)])
def test_the_first_id_can_be_watched(
    one_model: DecodingCase, beam_size: int, text: tuple[int, ...]
) -> None:
    state = one_model.decoder.start(one_model.encoded[:1], FixedRules())
    start = one_model.ids["<|startoftranscript|>"]
    options = SearchOptions(beam_size=beam_size, max_length=4)
    arguments = (one_model.decoder, state, [[start, *text]], 1, options, make_rules())
    (found,) = run_search(*arguments, watch=0)
    alone = one_model.decoder.start(one_model.encoded[:1], FixedRules())
    one_model.decoder.prefill(alone, np.array([[start]], np.int32))
    assert found.watched == pytest.approx(one_model.decoder.prefill_probability(alone, 0, 0)[0])


@pytest.mark.parametrize("beam_size", [1, 2])
def test_a_single_token_that_ends(one_model: DecodingCase, beam_size: int) -> None:
    """Nothing is left, and its score is divided by no length, too."""
    eot = one_model.ids["<|endoftext|>"]
    others = [token for token in range(one_model.decoder.n_vocab) if token != eot]
    options: dict[str, Any] = {"suppress_tokens": others, "suppress_blank": False}
    one_model.check([one_model.prompt()], beam_size=beam_size, max_length=4, **options)


def test_logits_of_greedy_search(model: DecodingCase) -> None:
    prompts = [model.prompt(*text, timestamps=True) for text in ((), (40, 50, 60), (41,))]
    options = {"beam_size": 1, "return_logits_vocab": True, "max_length": 60}
    ours = model.check(prompts, **options)
    encoded = ctranslate2.StorageView.from_array(model.encoded)
    theirs = model.reference.generate(encoded, prompts, return_scores=True, **options)
    for result, expected in zip(ours, theirs, strict=True):
        logits = np.array([np.array(step) for step in expected.logits[0]])
        np.testing.assert_allclose(np.stack(result.logits[0]), logits, rtol=1e-4, atol=1e-4)


def test_logits_of_beam_search_are_empty(one_model: DecodingCase) -> None:
    prompts = [one_model.prompt()] * 2
    options = {"beam_size": 3, "num_hypotheses": 2, "return_logits_vocab": True, "max_length": 40}
    for result in one_model.check(prompts, **options):
        assert [step.size for steps in result.logits for step in steps] == [0, 0]


def test_forced_tokens_take_no_steps(one_model: DecodingCase) -> None:
    """A prefix that all items share in length costs one pass, and beams only grow after it."""
    rows: list[tuple[int, int]] = []

    class Counting(NumpyDecoder):
        def step(self, state: NumpyState, request: StepRequest) -> Candidates:
            rows.append((state.keys[0].shape[1], request.rows))
            return super().step(state, request)

    counting = Counting(
        one_model.decoder.weights, one_model.ids["<|endoftext|>"], one_model.first_timestamp
    )
    state = counting.start(one_model.encoded[:2], FixedRules())
    options = SearchOptions(beam_size=3, max_length=6)
    run_search(counting, state, [[7, 40, 50, 60], [7, 41, 51, 61]], -1, options, make_rules())
    assert rows == [(3, 2), (4, 6), (5, 6)]


def test_start_tokens_are_needed(one_model: DecodingCase) -> None:
    state = one_model.decoder.start(one_model.encoded[:1], FixedRules())
    batches: list[list[list[int]]] = [[], [[]]]
    for start_tokens in batches:
        with pytest.raises(ValueError, match="decoder start token"):
            run_search(one_model.decoder, state, start_tokens, 0, SearchOptions(), make_rules())


def test_dropped_items_leave_the_others_alone(model: DecodingCase) -> None:
    """A batch gives what its items give alone, whichever ends first."""
    prompt = model.prompt(timestamps=True)
    together = model.generate([prompt] * BATCH, return_scores=True, max_length=100)
    for item, expected in enumerate(together):
        alone = replace(model, encoded=model.encoded[item : item + 1])
        (result,) = alone.generate([prompt], return_scores=True, max_length=100)
        assert result.sequences == expected.sequences
        assert result.scores == pytest.approx(expected.scores, abs=1e-4)
