"""The searches over a numpy decoder against the reference on the same model and audio."""

from __future__ import annotations

import ast
import re
from collections import Counter
from dataclasses import replace
from typing import Any

import ctranslate2
import numpy as np
import pytest

from compat_tests.support.decoding_case import BATCH, DecodingCase, load_case
from compat_tests.support.numpy_decoder import NumpyDecoder, NumpyState, pick
from whisper_max_backend.engine.search.options import SearchOptions
from whisper_max_backend.engine.search.protocol import Candidates, Lookahead, Sampling, StepRequest
from whisper_max_backend.engine.search.rules import FixedRules, make_rules
from whisper_max_backend.engine.search.run import run_search


@pytest.fixture(scope="module", params=[0, 5])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> DecodingCase:
    return load_case(tmp_path_factory.mktemp("miniature"), request.param)


@pytest.fixture(scope="module")
def one_model(tmp_path_factory: pytest.TempPathFactory) -> DecodingCase:
    return load_case(tmp_path_factory.mktemp("miniature"), 0)


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
    options = SearchOptions(beam_size=beam_size, max_length=length)
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


def _sampled(model: DecodingCase, seeds: int, **options: Any) -> list[list[tuple[int, ...]]]:
    """Sequences of the single item, one list a seed."""
    prompt = [model.prompt()]
    runs = [model.generate(prompt, seed=seed, max_length=8, **options) for seed in range(seeds)]
    return [[tuple(sequence) for sequence in run[0].sequences] for run in runs]


def test_sampled_hypotheses(one_model: DecodingCase) -> None:
    """Several are drawn independently, sorted by score, and repeat with the seed."""
    options: dict[str, Any] = {"beam_size": 1, "num_hypotheses": 6, "sampling_topk": 0}
    (first,) = _sampled(one_model, 1, **options)
    assert len(set(first)) > 1
    assert _sampled(one_model, 2, **options)[0] == first
    assert _sampled(one_model, 2, **options)[1] != first
    (result,) = one_model.generate([one_model.prompt()], return_scores=True, **options)
    assert result.scores == sorted(result.scores, reverse=True)


def test_sampled_hypotheses_are_each_items_own(one_model: DecodingCase) -> None:
    """They begin with the item's prefix, and the scores are those of its sequences."""
    prompts = [one_model.prompt(40 + item) for item in range(BATCH)]
    options: dict[str, Any] = {"beam_size": 1, "sampling_topk": 5, "max_length": 16}
    found = one_model.generate(prompts, num_hypotheses=4, return_scores=True, **options)
    for item, result in enumerate(found):
        assert [sequence[0] for sequence in result.sequences] == [40 + item] * 4
        assert len(result.scores) == 4
        assert len({tuple(sequence) for sequence in result.sequences}) > 1
    assert one_model.generate(prompts, num_hypotheses=4, **options)[0].scores == []


def test_sampled_tokens_are_those_of_the_reference(one_model: DecodingCase) -> None:
    """The first tokens of both sides are as frequent."""
    options: dict[str, Any] = {
        "beam_size": 1,
        "num_hypotheses": 40,
        "sampling_topk": 5,
        "max_length": 10,
    }
    encoded = ctranslate2.StorageView.from_array(one_model.encoded[:1])
    ctranslate2.set_random_seed(7)
    counts: tuple[Counter[int], Counter[int]] = (Counter(), Counter())
    for seed in range(10):
        ours = one_model.generate([one_model.prompt()], seed=seed, **options)
        theirs = one_model.reference.generate(encoded, [one_model.prompt()], **options)
        for count, sequences in zip(
            counts, (ours[0].sequences, theirs[0].sequences_ids), strict=True
        ):
            count.update(sequence[0] for sequence in sequences)
    ours_drawn, theirs_drawn = counts
    tokens = ours_drawn | theirs_drawn
    assert 1 < len(tokens) <= 5
    for token in tokens:  # 400 draws a side: the deviation of the difference is 14 at most
        assert abs(ours_drawn[token] - theirs_drawn[token]) < 60


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_gumbel_picks_follow_the_distribution(temperature: float) -> None:
    logits = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))
    draws = np.repeat(logits[None], 20000, axis=0)
    picked = pick(draws, 1, Sampling(temperature, topk=0, seed=3))[:, 0]
    expected = np.exp(logits / temperature) / np.exp(logits / temperature).sum()
    np.testing.assert_allclose(np.bincount(picked) / len(draws), expected, atol=0.02)
    among_two = pick(draws, 1, Sampling(temperature, topk=2, seed=3))
    assert set(among_two[:, 0].tolist()) == {0, 1}


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


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"beam_size": 0}, "beam_size"),
        ({"patience": 0.0}, "patience"),
        ({"patience": -1.0}, "patience"),
        ({"num_hypotheses": 0}, "num_hypotheses"),
        ({"num_hypotheses": 4, "beam_size": 3}, "num_hypotheses"),
        ({"num_hypotheses": 2, "beam_size": 1}, "num_hypotheses"),
        ({"beam_size": 1, "patience": 0.4}, "num_hypotheses"),
        ({"max_length": 3}, "max_length"),
        ({"repetition_penalty": 0.0}, "repetition_penalty"),
        ({"beam_size": 1, "sampling_topk": 10**6}, "sampling_topk"),
    ],
    ids=str,
)
def test_bad_options(one_model: DecodingCase, options: dict[str, Any], named: str) -> None:
    """Refused like the reference refuses them, with the argument named."""
    encoded = ctranslate2.StorageView.from_array(one_model.encoded[:1])
    with pytest.raises(ValueError) as expected:  # noqa: PT011
        one_model.reference.generate(encoded, [one_model.prompt()], **options)
    with pytest.raises(ValueError, match=named) as raised:
        one_model.generate([one_model.prompt()], **options)
    gist = str(expected.value).split(" > ")[0].split(" (")[0]
    assert gist in str(raised.value)


@pytest.mark.parametrize(
    "options",
    [
        {"beam_size": 2, "sampling_topk": 0},
        {"beam_size": 2, "sampling_topk": 4},
        {"beam_size": 2, "sampling_topk": 3, "sampling_temperature": 0.0},
        {"beam_size": 1, "sampling_topk": 10},
        {"beam_size": 5, "num_hypotheses": 5},
        {"beam_size": 1, "num_hypotheses": 9, "sampling_topk": 0},
        {"max_length": -1},
    ],
    ids=str,
)
def test_options_at_the_limit(options: dict[str, Any]) -> None:
    SearchOptions(**options).validate(10)


@pytest.mark.parametrize("options", [{"beam_size": 2}, {"beam_size": 1, "sampling_topk": 4}])
def test_options_beyond_a_small_vocabulary(options: dict[str, Any]) -> None:
    SearchOptions(**options).validate(4)
    with pytest.raises(ValueError, match=list(options)[-1]):
        SearchOptions(**options).validate(3)


def test_defaults_are_those_of_generate() -> None:
    signature = str(ctranslate2.models.Whisper.generate.__doc__).splitlines()[0]
    for name, default in vars(SearchOptions()).items():
        if name not in ("max_length", "seed"):
            stated = re.search(rf"\b{name}: [^=]*= ([^,)]*)", signature)
            assert stated is not None
            assert ast.literal_eval(stated[1]) == default


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


@pytest.mark.parametrize(
    ("beam_size", "patience", "expected"), [(5, 1.0, 5), (5, 0.5, 3), (1, 0.5, 1), (3, 1.5, 5)]
)
def test_patience_rounds_half_away_from_zero(
    beam_size: int, patience: float, expected: int
) -> None:
    options = SearchOptions(beam_size=beam_size, patience=patience)
    assert options.max_candidates == expected


@pytest.mark.parametrize(
    "options",
    [
        {"beam_size": 2000},
        {"beam_size": 5, "sampling_topk": 4},
        {"patience": float("nan")},
    ],
    ids=str,
)
def test_options_the_reference_reads_out_of_bounds(
    one_model: DecodingCase, options: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        one_model.generate([one_model.prompt()], **options)


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
