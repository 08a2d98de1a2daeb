"""Temperatures above 0: the distribution that is drawn from, and the decisions to fall back."""

from __future__ import annotations

from collections import Counter
from typing import Any

import ctranslate2
import numpy as np
import pytest

from compat_tests.support.miniature import ARCHITECTURES, make_model, vocabulary_tokens
from compat_tests.support.models import check, engine_class, our_model, reference_transcription
from compat_tests.support.recordings import load

pytestmark = pytest.mark.slow

TOKENS = vocabulary_tokens(ARCHITECTURES["one-head"])
PROMPT = ["<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>"]
DRAWS, CALLS = 500, 6
# Of a normal distribution: about once in four million tests that ought to pass.
LIMIT = 5.0

# Sampling at this temperature takes the best token as good as always, yet is sampling to the
# code: what fell back to it can be compared token for token.
COLD = 1e-5


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    path = str(make_model(tmp_path_factory.mktemp("sampling"), "one-head"))
    return ctranslate2.models.Whisper(path, compute_type="float32"), engine_class()(
        path, compute_type="float32"
    )


@pytest.fixture(scope="module")
def features() -> ctranslate2.StorageView:
    shape = (1, 80, 2 * ARCHITECTURES["one-head"].n_audio_ctx)
    random = np.random.default_rng(3)
    return ctranslate2.StorageView.from_array(random.normal(0, 0.5, shape).astype(np.float32))


def first_tokens(engine: Any, features: Any, **options: Any) -> tuple[Counter[int], np.ndarray]:
    """How often each token came first, and the logits [n_vocab] that all were drawn from."""
    counts: Counter[int] = Counter()
    end = TOKENS.index("<|endoftext|>")
    for _ in range(CALLS):
        (result,) = engine.generate(
            features,
            [PROMPT],
            beam_size=1,
            num_hypotheses=DRAWS,
            max_length=len(PROMPT),  # room for one token
            suppress_tokens=[],
            suppress_blank=False,
            return_logits_vocab=True,
            **options,
        )
        assert len(result.sequences_ids) == DRAWS
        counts.update(ids[0] if ids else end for ids in result.sequences_ids)
        logits = next(np.array(steps[0]) for steps in result.logits if steps)
    return counts, logits


def expected_probabilities(logits: np.ndarray, temperature: float, topk: int) -> np.ndarray:
    """softmax(logits / temperature) among the top k (0: all)."""
    scaled = logits.astype(np.float64) / temperature
    if topk:
        scaled[np.argsort(scaled)[:-topk]] = -np.inf
    weights = np.exp(scaled - scaled.max())
    return weights / weights.sum()


def chi_square_deviate(counts: Counter[int], probabilities: np.ndarray) -> float:
    """Pearson's statistic as a standard normal deviate (Wilson and Hilferty 1931).

    Tokens expected fewer than ten times are one class.
    """
    total = counts.total()
    expected = probabilities * total
    observed = np.array([counts[i] for i in range(len(expected))], np.float64)
    common = expected >= 10
    classes = [*zip(observed[common], expected[common], strict=True)]
    rest = float(observed[~common].sum()), float(expected[~common].sum())
    if rest[1] >= 10:
        classes.append(rest)
    assert len(classes) > 2, "the distribution is too narrow to test"
    statistic = sum((o - e) ** 2 / e for o, e in classes)
    freedom = len(classes) - 1
    spread = 2 / (9 * freedom)
    return float(((statistic / freedom) ** (1 / 3) - (1 - spread)) / spread**0.5)


@pytest.mark.parametrize("topk", [0, 5])
@pytest.mark.parametrize("temperature", [0.4, 1.0, 1.7])
def test_distribution(
    engines: tuple[Any, Any], features: Any, temperature: float, topk: int
) -> None:
    options = {"sampling_temperature": temperature, "sampling_topk": topk}
    for engine in engines:
        counts, logits = first_tokens(engine, features, **options)
        probabilities = expected_probabilities(logits, temperature, topk)
        impossible = [token for token in counts if probabilities[token] < 1e-12]
        assert not impossible
        assert chi_square_deviate(counts, probabilities) < LIMIT


def test_nothing_impossible_is_drawn(engines: tuple[Any, Any], features: Any) -> None:
    """The noise is finite, whatever the random bits: 2**24 times six are looked at."""
    ours = engines[1]
    options = {"sampling_temperature": 0.1, "sampling_topk": 0}  # all but a few are impossible
    for _ in range(6 * 2**24 // (len(TOKENS) * DRAWS * CALLS) + 1):
        counts, logits = first_tokens(ours, features, **options)
        probabilities = expected_probabilities(logits, 0.1, 0)
        assert min(probabilities[token] for token in counts) > 1e-12


def test_the_test_can_fail(engines: tuple[Any, Any], features: Any) -> None:
    """Draws at one temperature do not pass for another."""
    options = {"sampling_temperature": 1.0, "sampling_topk": 0}
    counts, logits = first_tokens(engines[0], features, **options)
    assert chi_square_deviate(counts, expected_probabilities(logits, 0.9, 0)) > LIMIT


def test_scores_of_samples(engines: tuple[Any, Any], features: Any) -> None:
    """A sampled sequence has the score that the reference gives to the same sequence."""
    options = {
        "beam_size": 1,
        "num_hypotheses": 200,
        "max_length": len(PROMPT),
        "sampling_topk": 0,
        "sampling_temperature": 0.7,
        "return_scores": True,
    }
    scores: list[dict[tuple[int, ...], float]] = []
    for engine in engines:
        (result,) = engine.generate(features, [PROMPT], **options)
        assert result.scores == sorted(result.scores, reverse=True)
        scores.append(
            {tuple(i): s for i, s in zip(result.sequences_ids, result.scores, strict=True)}
        )
    common = scores[0].keys() & scores[1].keys()
    assert len(common) > 3
    for ids in common:
        assert scores[1][ids] == pytest.approx(scores[0][ids], abs=1e-4)


def test_cold_sampling_is_greedy(engines: tuple[Any, Any], features: Any) -> None:
    for options in ({"sampling_topk": 0, "sampling_temperature": COLD}, {}):
        expected, actual = (
            engine.generate(features, [PROMPT], beam_size=1, max_length=40, **options)[0]
            for engine in engines
        )
        assert actual.sequences_ids == expected.sequences_ids


# -- falling back


def test_some_windows_fall_back() -> None:
    """The windows below a log probability between the lowest and the highest, and no other."""
    options: dict[str, Any] = {
        "beam_size": 1,
        "best_of": 2,
        "without_timestamps": True,
        "condition_on_previous_text": False,
    }
    plain = reference_transcription("tiny.en", "two_minutes", temperature=0.0, **options)
    scores = sorted(segment.avg_logprob for segment in plain.segments)
    middle = len(scores) // 2
    threshold = (scores[middle - 1] + scores[middle]) / 2
    expected = check(
        "tiny.en",
        "two_minutes",
        temperature=[0.0, COLD],
        log_prob_threshold=threshold,
        compression_ratio_threshold=None,
        **options,
    )
    assert {segment.temperature for segment in expected.segments} == {0.0, COLD}


def test_all_temperatures_fail() -> None:
    """Too repetitive at every temperature: the best is taken, under the last temperature."""
    expected = check(
        "tiny.en",
        "jfk",
        temperature=[0.0, COLD, 2 * COLD],
        best_of=2,
        compression_ratio_threshold=1.0,
    )
    assert {segment.temperature for segment in expected.segments} == {2 * COLD}


def test_repetition_falls_back() -> None:
    """A loop over music at temperature 0, with the default thresholds."""
    expected = check(
        "tiny.en",
        "music",
        temperature=[0.0, COLD],
        best_of=1,
        no_speech_threshold=None,
    )
    assert COLD in {segment.temperature for segment in expected.segments}


def test_silence_does_not_fall_back() -> None:
    """A window without speech is skipped and not tried again."""
    expected = check(
        "tiny.en",
        "silence",
        temperature=[0.0, 1.0],
        no_speech_threshold=0.01,
        log_prob_threshold=0.0,
    )
    assert expected.segments == []


def test_prompt_is_reset_after_a_fallback() -> None:
    check(
        "tiny.en",
        "dialogue",
        temperature=[0.0, COLD],
        best_of=1,
        beam_size=1,
        log_prob_threshold=0.0,
        no_speech_threshold=None,
        prompt_reset_on_temperature=COLD / 2,
    )


def test_sampled_transcription() -> None:
    """At a real temperature the text is random, but it is there, and still the speech."""
    segments, _ = our_model("tiny.en").transcribe(load("jfk").copy(), temperature=0.4, best_of=3)
    found = list(segments)
    assert {segment.temperature for segment in found} == {0.4}
    assert "country" in "".join(segment.text for segment in found).lower()
