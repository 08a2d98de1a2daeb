"""The engines against `ctranslate2.models.Whisper`, on miniature models.

The CPU's on every architecture; the GPU's graphs, executed on the CPU, with int8 weights too.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from compat_tests.support.compare import language_differences
from compat_tests.support.engines import (
    MAX_LENGTH,
    PROBABILITY,
    Engines,
    assert_same_results,
    engine_cases,
    make_engines,
    relative_error,
)
from compat_tests.support.float64_network import Network
from compat_tests.support.numpy_runtime import storage
from compat_tests.support.randomness import rng
from whisper_max_backend.engine.checkpoint.load import load_checkpoint

pytestmark = pytest.mark.slow

ENCODER_ERROR = 2e-5  # relative to the largest value
LOGITS_ERROR = 1e-4
CASES = dict(engine_cases())


@pytest.fixture(scope="module", params=CASES)
def engines(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Engines:
    return make_engines(CASES[request.param], tmp_path_factory)


def test_properties(engines: Engines) -> None:
    for name in (
        "is_multilingual",
        "n_mels",
        "num_languages",
        "device",
        "device_index",
        "num_workers",
        "num_queued_batches",
        "num_active_batches",
        "tensor_parallel",
        "model_is_loaded",
    ):
        assert getattr(engines.ours, name) == getattr(engines.reference, name), name
    assert engines.ours.compute_type == engines.case.compute_type


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("missing", [0, 1, 37], ids=["whole", "odd", "short"])
def test_encode(engines: Engines, batch: int, missing: int) -> None:
    """Whole windows and shorter ones, an odd number of frames included."""
    features = engines.features(batch, 2 * engines.architecture.n_audio_ctx - missing)
    expected = np.array(engines.reference.encode(storage(features)))
    actual = np.array(engines.ours.encode(storage(features)))
    assert actual.dtype == expected.dtype
    assert relative_error(expected, actual) < ENCODER_ERROR


def test_encoded_once_or_twice(engines: Engines) -> None:
    """`generate` takes features, its own encoder's output, and the reference's as well."""
    features = storage(engines.features())
    prompts = [engines.prompt()]
    expected = engines.reference.generate(features, prompts, max_length=MAX_LENGTH)
    for given in (
        features,
        engines.ours.encode(features),
        engines.ours.encode(features, to_cpu=True),
        engines.reference.encode(features),
    ):
        actual = engines.ours.generate(given, prompts, max_length=MAX_LENGTH)
        assert actual[0].sequences_ids == expected[0].sequences_ids


def test_encoder_outputs_longer_than_a_window(engines: Engines) -> None:
    """What a caller brings may be longer than the model's encoder makes it."""
    shape = (2, 4 * engines.architecture.n_audio_ctx, engines.architecture.n_state)
    states = storage(rng().normal(0, 1, shape).astype(np.float32))
    prompts = [engines.prompt()] * 2
    for _ in range(3):  # another request would find what this one has overwritten
        expected, actual = (
            model.generate(states, prompts, max_length=MAX_LENGTH, return_scores=True)
            for model in (engines.reference, engines.ours)
        )
        assert_same_results(expected, actual)


GENERATE: dict[str, dict[str, Any]] = {
    "beam-5": {},
    "greedy": {"beam_size": 1},
    "beam-2": {"beam_size": 2},
    "patience": {"patience": 2.0},
    "patience-beyond-int32": {"patience": 5e8},  # times 5
    "hypotheses": {"num_hypotheses": 3},
    "length-penalty": {"length_penalty": 0.6, "num_hypotheses": 5},
    "no-length-penalty": {"length_penalty": 0.0},
    "repetition-penalty": {"repetition_penalty": 1.1},
    "repetition-penalty-greedy": {"repetition_penalty": 1.3, "beam_size": 1},
    "no-repeat-3": {"no_repeat_ngram_size": 3},
    "no-repeat-1": {"no_repeat_ngram_size": 1, "beam_size": 1},
    "no-blank-rule": {"suppress_blank": False},
    "nothing-suppressed": {"suppress_tokens": [], "suppress_blank": False},
    "suppressed": {"suppress_tokens": [-1, 3, 4, 5, 300], "beam_size": 1},
    "first-timestamp": {"max_initial_timestamp_index": 0},
    "any-first-timestamp": {"max_initial_timestamp_index": 1500, "beam_size": 1},
    "temperature-of-the-best": {"sampling_temperature": 0.5, "sampling_topk": 1, "beam_size": 1},
    "everything": {
        "beam_size": 4,
        "patience": 1.5,
        "num_hypotheses": 2,
        "length_penalty": 0.8,
        "repetition_penalty": 1.1,
        "no_repeat_ngram_size": 2,
    },
}


@pytest.mark.parametrize("options", GENERATE.values(), ids=GENERATE)
@pytest.mark.parametrize(("batch", "timestamps"), [(1, True), (3, False)], ids=["one", "three"])
def test_generate(engines: Engines, batch: int, timestamps: bool, options: dict) -> None:
    """One item with timestamps, three without."""
    prompts = [engines.prompt(timestamps=timestamps)] * batch
    assert_same_results(*engines.generate(prompts, **options))


@pytest.mark.parametrize("beam_size", [5, 1])
def test_batch_with_timestamps(engines: Engines, beam_size: int) -> None:
    """Items end at different steps: the rules follow each of them."""
    prompts = [engines.prompt()] * 4
    assert_same_results(*engines.generate(prompts, beam_size=beam_size, suppress_blank=False))


@pytest.mark.parametrize("beam_size", [5, 1])
def test_whole_length(engines: Engines, beam_size: int) -> None:
    """As many tokens as the text context allows."""
    length = engines.architecture.n_text_ctx
    prompts = [engines.prompt()]
    assert_same_results(*engines.generate(prompts, max_length=length, beam_size=beam_size))


@pytest.mark.parametrize("beam_size", [5, 1])
@pytest.mark.parametrize("prefix", [0, 3], ids=["prompt", "prompt-prefix"])
def test_previous_text(engines: Engines, beam_size: int, prefix: int) -> None:
    """A prompt of half the context, different for each item, and the beginning of the text."""
    half = engines.architecture.n_text_ctx // 2 - 1
    prompts = [
        [
            engines.tokens["<|startofprev|>"],
            *engines.words(half, seed=item),
            *engines.prompt(timestamps=False),
            *engines.words(prefix, seed=10 + item),
        ]
        for item in range(2)
    ]
    length = engines.architecture.n_text_ctx
    results = engines.generate(prompts, beam_size=beam_size, max_length=length)
    assert_same_results(*results)


@pytest.mark.parametrize("beam_size", [5, 1])
def test_beginnings_of_unequal_length(engines: Engines, beam_size: int) -> None:
    """Items may begin with more or fewer text tokens after the same task tokens."""
    prompts = [engines.prompt(timestamps=False) + engines.words(n, seed=n) for n in (0, 4, 1)]
    assert_same_results(*engines.generate(prompts, beam_size=beam_size))


@pytest.mark.parametrize("padding", [0, 30])
def test_following_live_speech(engines: Engines, padding: int) -> None:
    """The reference's greedy tokens, each with the frame that it attends to most."""
    prompt = engines.prompt(timestamps=False)
    content = engines.architecture.n_audio_ctx - padding
    results = engines.reference.generate(
        storage(engines.features()), [prompt], beam_size=1, max_length=MAX_LENGTH
    )
    followed = engines.ours.follow(
        storage(engines.features()), prompt, content=content, until=10**6, max_length=MAX_LENGTH
    )
    ids = [token.id for token in followed.tokens]
    assert ids == results[0].sequences_ids[0]
    checkpoint = load_checkpoint(engines.path)
    network = Network(checkpoint)
    states = network.encode(engines.features().astype(float))
    network.decode(np.array([[*prompt, *ids]]), states)
    heads = checkpoint.config["alignment_heads"]
    weights = np.sum([network.cross_weights[layer][0, head] for layer, head in heads], axis=0)
    # The step that proposes a token is the one whose input is the token before it.
    rows = weights[len(prompt) - 1 : -1, :content]
    found = rows[np.arange(len(ids)), [token.frame for token in followed.tokens]]
    # Where two frames are as good as equal, rounding decides.
    assert (found >= 0.999 * rows.max(axis=1)).all()


def test_following_ends_where_the_audio_does(engines: Engines) -> None:
    """Before the first token that attends to a frame from `until` on."""
    prompt = engines.prompt(timestamps=False)
    given = {"content": engines.architecture.n_audio_ctx, "max_length": MAX_LENGTH}
    features = storage(engines.features())
    whole = engines.ours.follow(features, prompt, until=10**6, **given).tokens
    until = sorted({token.frame for token in whole})[-1]
    cut = engines.ours.follow(features, prompt, until=until, **given)
    first = next(i for i, token in enumerate(whole) if token.frame >= until)
    assert [token.id for token in cut.tokens] == [token.id for token in whole[:first]]
    assert not cut.ended


def test_prompts_as_strings(engines: Engines) -> None:
    names = {i: name for name, i in engines.tokens.items()}
    prompts = [[names[i] for i in engines.prompt()]]
    assert_same_results(*engines.generate(prompts))  # type: ignore[arg-type]


def test_many_seeds(engines: Engines) -> None:
    """Several windows of audio, the most probable sequences and others."""
    seen = set()
    for seed in range(5):
        expected, actual = engines.generate([engines.prompt()], seed=seed, num_hypotheses=5)
        assert_same_results(expected, actual)
        seen.add(tuple(expected[0].scores))
    assert len(seen) > 1


@pytest.mark.parametrize("options", [{}, {"repetition_penalty": 1.2}], ids=["plain", "penalty"])
@pytest.mark.parametrize("timestamps", [True, False], ids=["timestamps", "no-timestamps"])
def test_logits(engines: Engines, timestamps: bool, options: dict) -> None:
    prompts = [engines.prompt(timestamps=timestamps)] * 2
    expected, actual = engines.generate(
        prompts, return_logits_vocab=True, beam_size=1, max_length=24, **options
    )
    assert_same_results(expected, actual)
    for one, other in zip(expected, actual, strict=True):
        assert [len(steps) for steps in other.logits] == [len(steps) for steps in one.logits]
        for ours, theirs in zip(other.logits[0], one.logits[0], strict=True):
            first, second = np.array(theirs), np.array(ours)
            banned = first < -1e30  # what the rules forbid: the lowest float
            np.testing.assert_array_equal(second < -1e30, banned)
            assert relative_error(first[~banned], second[~banned]) < LOGITS_ERROR


def test_logits_of_a_beam(engines: Engines) -> None:
    """The reference leaves them empty for a beam search."""
    expected, actual = engines.generate(
        [engines.prompt()], return_logits_vocab=True, num_hypotheses=2
    )
    lengths = [len(steps) for steps in expected[0].logits]
    assert [len(steps) for steps in actual[0].logits] == lengths
    assert all(np.array(step).size == 0 for steps in actual[0].logits for step in steps)


def test_what_is_not_asked_for(engines: Engines) -> None:
    """No scores, no logits, no no-speech probability unless they are wanted."""
    options = {"return_scores": False, "return_no_speech_prob": False}
    (expected,), (actual,) = engines.generate([engines.prompt()], **options)
    assert actual.scores == expected.scores
    assert actual.logits == expected.logits
    assert actual.no_speech_prob == expected.no_speech_prob


def test_asynchronous(engines: Engines) -> None:
    features = storage(engines.features())
    expected = engines.reference.generate(features, [engines.prompt()], max_length=MAX_LENGTH)
    (promise,) = engines.ours.generate(
        features, [engines.prompt()], max_length=MAX_LENGTH, asynchronous=True
    )
    assert promise.result().sequences_ids == expected[0].sequences_ids
    assert promise.done()


def test_several_threads(engines: Engines) -> None:
    def ask(model: Any, seed: int) -> list[list[int]]:
        features = storage(engines.features(seed=seed))
        results = model.generate(features, [engines.prompt()], max_length=MAX_LENGTH)
        return results[0].sequences_ids

    expected = [ask(engines.reference, seed) for seed in range(6)]
    with ThreadPoolExecutor(3) as pool:
        actual = list(pool.map(lambda seed: ask(engines.ours, seed), range(6)))
    assert actual == expected


def test_detect_language(engines: Engines) -> None:
    features = storage(engines.features(3))
    if not engines.reference.is_multilingual:
        for model in (engines.reference, engines.ours):
            with pytest.raises(RuntimeError, match="multilingual"):
                model.detect_language(features)
        return
    expected = engines.reference.detect_language(features)
    actual = engines.ours.detect_language(features)
    assert [item[0][0] for item in actual] == [item[0][0] for item in expected]
    for one, other in zip(expected, actual, strict=True):
        assert list(language_differences(one, other)) == []


@pytest.mark.parametrize("width", [7, 1, 3, 2, 6])
@pytest.mark.parametrize("shares", [(1.0,), (1.0, 1.0), (1.0, 0.5, 0.3)], ids=str)
def test_align(engines: Engines, shares: tuple[float, ...], width: int) -> None:
    """One item, two of equal length, and three of unequal text and audio."""
    frames = [int(2 * engines.architecture.n_audio_ctx * share) for share in shares]
    text = [engines.words(9 + 4 * i, seed=i) for i in range(len(shares))]
    features = storage(engines.features(len(shares)))
    start = engines.prompt()
    expected, actual = (
        model.align(features, start, text, frames, median_filter_width=width)
        for model in (engines.reference, engines.ours)
    )
    assert len(actual) == len(expected)
    for one, other in zip(expected, actual, strict=True):
        assert other.alignments == one.alignments
        assert other.text_token_probs == pytest.approx(one.text_token_probs, abs=PROBABILITY)


def test_align_nothing(engines: Engines) -> None:
    """No text, and no audio."""
    features = storage(engines.features())
    start = engines.prompt()
    for text, frames in (([[]], 50), ([engines.words(4)], 0), ([engines.words(4)], 1)):
        expected, actual = (
            model.align(features, start, text, frames)
            for model in (engines.reference, engines.ours)
        )
        assert actual[0].alignments == expected[0].alignments
        assert len(actual[0].text_token_probs) == len(expected[0].text_token_probs)


@pytest.mark.parametrize("frames", [[2], [3], [2, 3], [3, 50], [50, 2]], ids=str)
def test_align_with_one_position(engines: Engines, frames: list[int]) -> None:
    """All of the text is at the only position. The reference divides 0 by 0 there.

    What it makes of that depends on the sums of the processor: a path to position -1 is one.
    """
    text = [engines.words(5 + i, seed=i) for i in range(len(frames))]
    features = storage(engines.features(len(frames)))
    expected, actual = (
        model.align(features, engines.prompt(), text, frames)
        for model in (engines.reference, engines.ours)
    )
    for tokens, length, one, other in zip(text, frames, expected, actual, strict=True):
        if length < 4:
            assert other.alignments == [(i, 0) for i in range(len(tokens) + 1)]
        if all(position >= 0 for _, position in one.alignments):
            assert other.alignments == one.alignments
        assert other.text_token_probs == pytest.approx(one.text_token_probs, abs=PROBABILITY)


def test_unload_and_load(engines: Engines) -> None:
    features = storage(engines.features())
    prompts = [engines.prompt()]
    before = engines.ours.generate(features, prompts, max_length=MAX_LENGTH)
    engines.ours.unload_model()
    assert not engines.ours.model_is_loaded
    with pytest.raises(RuntimeError):
        engines.ours.generate(features, prompts, max_length=MAX_LENGTH)
    engines.ours.load_model()
    assert engines.ours.model_is_loaded
    after = engines.ours.generate(features, prompts, max_length=MAX_LENGTH)
    assert after[0].sequences_ids == before[0].sequences_ids
