"""The kernels of decoding and alignment against plain NumPy: from tokens to logits, candidates
and word times."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from compat_tests.support.float64_network import log_softmax
from compat_tests.support.kernel_graph import Kernels, normal, packed
from compat_tests.support.randomness import rng

LOWEST = float(np.finfo(np.float32).min)
WORST_Z = 5.0
"""A correct sampler fails a chi-square test as a normal number exceeds this: once in 3 million."""


@pytest.fixture(scope="module")
def kernels() -> Kernels:
    return Kernels(threads=2)


NONE = np.zeros(0, int)


def choose(
    kernels: Kernels,
    logits: np.ndarray,
    scores: np.ndarray,
    count: int,
    *,
    rules: tuple = (),
    watch: tuple[int, int] = (0, -1),
    penalty: float = 1.0,
    topk: int = 1,
    seed: int = 0,
    temperature: float = 0.0,
) -> list[np.ndarray]:
    """Candidates, watched probabilities, and ruled logits of a step with exactly these logits.

    The states pick the logits out of the embeddings, one of which each row is.
    """
    items, beams, vocabulary = logits.shape
    rows = items * beams
    if rows > 1 and np.array_equal(logits, np.broadcast_to(logits[:1, :1], logits.shape)):
        states, embeddings = np.ones((items, beams, 1)), logits[0, :1].T
    else:
        states = np.eye(rows).reshape(items, beams, rows)
        embeddings = logits.reshape(rows, vocabulary).T
    nothing = np.zeros((rows, 4), int), np.zeros((rows, 0), int), np.zeros((rows, 0), int)
    return kernels(
        "choose",
        states,
        packed(embeddings.astype(np.float32)),
        scores,
        *(rules or (NONE, *nothing, np.zeros(rows, int))),
        *([number] for number in (*watch, penalty, topk, seed, temperature)),
        shapes=[count, vocabulary],
    )


@pytest.mark.parametrize("index", [0, 3, 6])
def test_take_token(kernels: Kernels, index: int) -> None:
    x = normal(3, 7, 33)
    np.testing.assert_array_equal(kernels("take_token", x, [index])[0], x[:, [index]])


@pytest.mark.parametrize("limit", [0, 1, 50, 1003])
@pytest.mark.parametrize(("items", "rows", "count"), [(1, 1, 1), (2, 5, 1), (3, 1, 99)])
def test_probabilities(kernels: Kernels, items: int, rows: int, count: int, limit: int) -> None:
    logits = normal(items, rows, 1003, scale=5, mean=30)
    ids = rng().integers(0, limit or 1003, (items, rows, count))
    chosen = np.take_along_axis(logits, ids, axis=-1)
    among = logits[..., :limit] if limit else chosen
    top = among.max(axis=-1, keepdims=True)
    expected = np.exp(chosen - top) / np.exp(among - top).sum(axis=-1, keepdims=True)
    (output,) = kernels("probabilities", logits, ids, [limit])
    np.testing.assert_allclose(output, expected, rtol=2e-5)


def test_small_probabilities_add_up(kernels: Kernels) -> None:
    """Beside a likely token, the thousands of others are not rounded away from the sum.

    Those that are summed with it, a thousand, are rounded to float32's step at 1: 1.0e-6 at most in
    60 draws. If all were, the error would be 3e-5.
    """
    logits = normal(1, 1, 51865, mean=-17)
    logits[..., 777] = 0
    exact = np.exp(log_softmax(logits.astype(np.float64)))[..., [777]]
    (output,) = kernels("probabilities", logits, np.array([[[777]]]), [logits.shape[-1]])
    np.testing.assert_allclose(output, exact, rtol=2e-6)


@pytest.mark.parametrize("penalty", [1.0, 1.3])
@pytest.mark.parametrize("watch", [-1, 0, 199])
@pytest.mark.parametrize(("items", "beams"), [(1, 1), (2, 3)])
def test_rules(kernels: Kernels, items: int, beams: int, watch: int, penalty: float) -> None:
    vocabulary, first_timestamp, rows = 203, 150, items * beams
    logits = normal(items, beams, vocabulary, scale=2)
    # Text wins by far, loses by far, or is as likely as the timestamps together.
    logits[..., first_timestamp:] += rng().choice([-10, 0, 10], (items, beams, 1))
    suppressed = rng().choice(vocabulary, 9, replace=False)
    ranges = np.array([[5, 9, 0, 0], [0, 0, 160, 203], [0, 150, 180, 190]])[np.arange(rows) % 3]
    banned = rng().integers(-1, vocabulary, (rows, 6))
    # Distinct ids, and padding.
    penalized = np.stack([rng().permutation(vocabulary)[:8] for _ in range(rows)])
    penalized[:, 5] = -1
    checks = np.arange(rows) % 2 == (rows > 1)
    original = logits.reshape(rows, vocabulary).astype(np.float32)
    expected, factor = original.copy(), np.float32(penalty)
    for row in range(rows):
        for token in set(penalized[row]) - {-1}:
            value = original[row, token]
            expected[row, token] = value * factor if value < 0 else value / factor
        for token in {*suppressed, *banned[row]} - {-1}:
            expected[row, token] = LOWEST
        for low, high in ranges[row].reshape(2, 2):
            expected[row, low:high] = LOWEST
        if checks[row]:
            likely = np.logaddexp.reduce(expected[row, first_timestamp:].astype(np.float64))
            if likely > expected[row, :first_timestamp].max():
                expected[row, :first_timestamp] = LOWEST
    *_, watched, ruled = choose(
        kernels,
        logits,
        np.zeros(rows),
        1,
        rules=(suppressed, ranges, banned, penalized, checks.astype(int)),
        watch=(first_timestamp, watch),
        penalty=penalty,
    )
    np.testing.assert_allclose(ruled.reshape(rows, vocabulary), expected, rtol=1e-6)
    probability = np.exp(log_softmax(original.astype(np.float64)))[:, watch]
    np.testing.assert_allclose(watched, probability if watch >= 0 else 0 * watched, rtol=2e-5)


@pytest.mark.parametrize("watch", [-1, 17])
@pytest.mark.parametrize("free_rows", [0, 1])
def test_where_a_timestamp_has_to_follow(kernels: Kernels, free_rows: int, watch: int) -> None:
    """Text, several parts of the vocabulary, is banned in all rows, or in all but one."""
    items, beams, vocabulary, eot, first_timestamp = 2, 3, 7000, 5990, 6000
    rows, count = items * beams, 4
    logits, scores = normal(rows, vocabulary, scale=2), normal(rows, mean=-4)
    ranges = np.tile([0, eot, first_timestamp, 6200], (rows, 1))
    ranges[rows - free_rows :] = 0
    ruled = logits.copy()
    ruled[: rows - free_rows, :eot] = ruled[: rows - free_rows, first_timestamp:6200] = LOWEST
    nothing = np.full((rows, 1), -1)
    ids, origins, values, watched, output = choose(
        kernels,
        logits.reshape(items, beams, vocabulary),
        scores,
        count,
        rules=(NONE, ranges, nothing, nothing, np.zeros(rows, int)),
        watch=(first_timestamp, watch),
    )
    np.testing.assert_allclose(output.reshape(ruled.shape), ruled, rtol=1e-6)
    summed = (log_softmax(ruled) + scores[:, None]).reshape(items, beams, vocabulary)
    for item in range(items):
        expected = np.sort(summed[item].ravel())[::-1][:count]
        np.testing.assert_allclose(summed[item, origins[item], ids[item]], expected, atol=1e-5)
        np.testing.assert_allclose(values[item], expected, atol=1e-5)
    probability = np.exp(log_softmax(logits))[:, watch]
    np.testing.assert_allclose(watched, probability if watch >= 0 else 0 * watched, rtol=2e-5)


def test_rules_with_nothing_to_do(kernels: Kernels) -> None:
    logits = normal(2, 1, 40)
    np.testing.assert_array_equal(choose(kernels, logits, np.zeros(2), 1)[4], logits)


def best(kernels: Kernels, logits: np.ndarray, scores: np.ndarray, count: int) -> list[np.ndarray]:
    return choose(kernels, logits, scores, count)[:3]


@pytest.mark.parametrize(("items", "beams"), [(1, 1), (2, 5), (3, 2)])
@pytest.mark.parametrize(("vocabulary", "count"), [(7, 3), (1003, 1), (1003, 10), (51865, 10)])
def test_best_candidates(
    kernels: Kernels, items: int, beams: int, vocabulary: int, count: int
) -> None:
    logits, scores = normal(items, beams, vocabulary, scale=3), normal(items * beams, mean=-4)
    logits[:, 0, ::3] = LOWEST
    ids, origins, values = best(kernels, logits, scores, count)
    summed = log_softmax(logits) + scores.reshape(items, beams, 1)
    for item in range(items):
        expected = np.sort(summed[item].ravel())[::-1][:count]
        np.testing.assert_allclose(summed[item, origins[item], ids[item]], expected, atol=1e-5)
        np.testing.assert_allclose(values[item], expected, atol=1e-5)
        assert len(set(zip(origins[item], ids[item], strict=True))) == count


def test_equal_candidates_keep_their_order(kernels: Kernels) -> None:
    """Of equal scores the lower beam comes first, then the lower id."""
    logits = np.zeros((1, 3, 70))
    logits[0, :, [3, 40, 41, 69]] = 5
    ids, origins, values = best(kernels, logits, np.zeros(3), 10)
    assert ids[0].tolist() == [3, 40, 41, 69, 3, 40, 41, 69, 3, 40]
    assert origins[0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2]
    assert len(set(values[0].tolist())) == 1


def test_more_candidates_than_tokens(kernels: Kernels) -> None:
    """The last repeats; nothing is read beyond what there is."""
    logits = normal(2, 1, 4)
    ids, origins, _ = best(kernels, logits, np.zeros(2), 9)
    for item in range(2):
        order = np.argsort(-logits[item, 0])
        assert ids[item].tolist() == [*order, *[order[-1]] * 5]
    assert not origins.any()


def assert_drawn(draws: list, probabilities: dict) -> None:
    """Pearson's chi-square test; rare outcomes are one class."""
    assert set(draws) <= set(probabilities), "an impossible outcome"
    seen, total = Counter(draws), len(draws)
    common = {key: p for key, p in probabilities.items() if p * total >= 10}
    classes = [(seen[key], p * total) for key, p in common.items()]
    rest = 1 - sum(common.values())
    if rest * total >= 10:
        classes.append((total - sum(count for count, _ in classes), rest * total))
    chi_square = sum((count - mean) ** 2 / mean for count, mean in classes)
    # Wilson and Hilferty's normal approximation.
    spread = 2 / (9 * (len(classes) - 1))
    z = ((chi_square / (len(classes) - 1)) ** (1 / 3) - 1 + spread) / math.sqrt(spread)
    assert z < WORST_Z, f"chi-square {chi_square} of {len(classes)} classes"


@pytest.mark.parametrize("topk", [0, 10, 40, 100])
@pytest.mark.parametrize("temperature", [0.4, 1.0])
@pytest.mark.parametrize("by_item", [True, False])
def test_sampled_tokens(kernels: Kernels, topk: int, temperature: float, by_item: bool) -> None:
    """Many items of one step, and many steps of one item, both draw from the softmax."""
    row = normal(40, scale=0.7)
    order = np.argsort(-row)[: topk or None]
    weights = np.exp(log_softmax(row[order] / temperature))
    items, seeds = (4000, 2) if by_item else (1, 3000)
    logits, first = np.tile(row, (items, 1, 1)), 2 * rng().integers(1 << 29)
    draws: list[int] = []
    for seed in range(first, first + seeds):
        ids, origins, values, *_ = choose(
            kernels, logits, np.ones(items), 1, topk=topk, seed=seed, temperature=temperature
        )
        assert not origins.any()
        np.testing.assert_allclose(values, 1 + log_softmax(row)[ids], atol=1e-5)
        draws += ids[:, 0].tolist()
    assert_drawn(draws, dict(zip(order.tolist(), weights, strict=True)))


@pytest.mark.parametrize("topk", [0, 4])
def test_draws_do_not_repeat(kernels: Kernels, topk: int) -> None:
    """Several candidates of a draw are what drawing without replacement gives, in that order."""
    row = np.log([0.4, 0.3, 0.2, 0.1])
    logits = np.tile(np.pad(row, (0, 3), constant_values=LOWEST), (8000, 1, 1))
    ids = choose(kernels, logits, np.zeros(8000), 2, topk=topk, seed=11, temperature=1.0)[0]
    p = np.exp(row)
    pairs = {(i, j): p[i] * p[j] / (1 - p[i]) for i in range(4) for j in range(4) if i != j}
    assert_drawn([tuple(pair) for pair in ids.tolist()], pairs)


def test_draws_depend_on_the_seed_alone(kernels: Kernels) -> None:
    logits = normal(50, 1, 300)

    def draw(seed: int) -> list[int]:
        ids = choose(kernels, logits, np.zeros(50), 1, topk=0, seed=seed, temperature=1.0)[0]
        return ids[:, 0].tolist()

    assert draw(3) == draw(3) != draw(4)


def median_filter(x: np.ndarray, width: int) -> np.ndarray:
    """Running median along the last axis, the ends reflected; short rows stay as they are."""
    rank = width // 2
    if x.shape[-1] <= rank:
        return x
    padded = np.pad(x, ((0, 0), (rank, rank)), mode="reflect")
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, width, axis=-1), axis=-1)


@pytest.mark.parametrize("width", [1, 7, 65])
@pytest.mark.parametrize("head_size", [64, 20])
def test_alignment_weights(kernels: Kernels, head_size: int, width: int) -> None:
    """As timing.py of openai/whisper: softmax over frames, normalised over tokens, filtered."""
    layers, layer, items, heads, tokens, window_frames = 2, 1, 3, 4, 13, 90
    state = heads * head_size
    # Tokens of the item, tokens to normalise over, frames: whole, padded, and very short audio.
    sizes = np.array([[13, 13, 75], [9, 13, 40], [6, 6, 3]])
    chosen = [0, 3]
    states = normal(items, window_frames, state)
    cross_kv = np.zeros(
        (layers, items, heads, 4 * (96 * head_size + -(-head_size // 32) * 32 * window_frames)),
        np.uint8,
    )
    # Keys are the states themselves, in every layer.
    identity = packed(np.eye(state, dtype=np.float32))
    nothing = np.zeros(-(-4 * state // 64) * 64, np.uint8)
    weights_of_layers = np.concatenate([identity, nothing] * 2 * layers)
    windows = [2, 0, 1]  # where each of these items goes
    kernels("cross_kv", cross_kv, windows, states[windows], weights_of_layers, [state])
    queries = normal(layers, items, tokens, state)
    expected = np.zeros((items, tokens, 75))
    for item, (length, normalized, frames) in enumerate(sizes):
        queries[:, item, length:] = np.nan
        for head in chosen:
            part = slice(head * head_size, (head + 1) * head_size)
            scores = queries[layer, item, :length, part] @ states[item, :frames, part].T
            weights = np.exp(log_softmax(scores / math.sqrt(head_size)))
            # The reference pads a shorter text by repeating its last row.
            weights = weights[np.minimum(np.arange(normalized), length - 1)]
            weights = (weights - weights.mean(axis=0)) / weights.std(axis=0)
            expected[item, :normalized, :frames] += median_filter(weights, width)
    (sums,) = kernels(
        "alignment_weights",
        queries,
        cross_kv,
        [[layer, head] for head in chosen],
        sizes,
        [window_frames],
        [width],
        shapes=[75],
    )
    np.testing.assert_allclose(sums, expected, atol=2e-5)


def warped(weights: np.ndarray) -> list[list[int]]:
    """The cheapest monotonic path, in float32 as the reference computes it (dtw of timing.py)."""
    rows, columns = weights.shape
    cost = np.full((rows + 1, columns + 1), np.inf, np.float32)
    cost[0, 0] = 0
    came = {}
    for i in range(1, rows + 1):
        for j in range(1, columns + 1):
            diagonal, up, left = cost[i - 1, j - 1], cost[i - 1, j], cost[i, j - 1]
            if diagonal < up and diagonal < left:
                came[i, j] = (i - 1, j - 1)
            elif up < diagonal and up < left:
                came[i, j] = (i - 1, j)
            else:
                came[i, j] = (i, j - 1)
            cost[i, j] = cost[came[i, j]] - weights[i - 1, j - 1]
    place, path = (rows, columns), []
    while place != (0, 0):
        path.append([place[0] - 1, place[1] - 1])
        place = came[place]
    return path[::-1]


@pytest.mark.parametrize(("tokens", "frames"), [(1, 1), (1, 9), (9, 1), (12, 60), (60, 12)])
@pytest.mark.parametrize("ties", [False, True])
def test_dtw(kernels: Kernels, tokens: int, frames: int, ties: bool) -> None:
    first = np.array([0, 2, 1])
    rows, columns = np.array([tokens, max(1, tokens - 2), 1]), np.array([frames, frames, 1])
    sums = normal(3, tokens + 3, frames, scale=4)
    if ties:
        sums = np.round(sums / 4)
    paths, counts = kernels(
        "dtw",
        sums,
        np.stack([first, rows, columns], axis=1),
        [4.0],
        shapes=[tokens + 3 + frames],
    )
    for item in range(3):
        matrix = sums[item, first[item] : first[item] + rows[item], : columns[item]] / 4
        expected = warped(matrix.astype(np.float32))
        assert paths[item, : counts[item]].tolist() == expected
