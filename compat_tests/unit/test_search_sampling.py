"""Sampling by the searches: independent draws, repeated with the seed."""

from __future__ import annotations

from collections import Counter
from typing import Any

import ctranslate2
import numpy as np
import pytest

from compat_tests.support.decoding_case import BATCH, DecodingCase
from compat_tests.support.numpy_decoder import pick
from whisper_max_backend.engine.search.protocol import Sampling


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
