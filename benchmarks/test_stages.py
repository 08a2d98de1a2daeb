"""Stage by stage: log-mel, encoder, one decoder step, alignment."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from faster_whisper import feature_extractor as reference
from faster_whisper.transcribe import get_ctranslate2_storage

from benchmarks.conftest import Pair
from benchmarks.limits import multiply_limit, read_limit
from benchmarks.paired import Timed, compare, fastest, record, take_turns
from compat_tests.recordings import load
from whisper_max_backend.engine.cpu_target import has_tiles
from whisper_max_backend.feature_extractor import FeatureExtractor

RATE = 16_000
FEW, MANY = 4, 36
"""Tokens of two runs, whose difference is that of so many steps."""

SHAPES = {"tiny.en": (384, 4), "base": (512, 6)}
"""Width, and layers of the encoder as of the decoder."""

WEIGHT_BYTES = {"float32": 2, "int8": 1}
"""Of a weight that a decoder step reads: the models' files hold float16, which stays so."""
MEMORY_BYTES = {"float32": 4, "int8": 1}
"""Of a cross-attention key or value."""
INT8_OPERATIONS = 4
"""A vector instruction multiplies four times as many bytes as float32 numbers."""


def windows(count: int) -> Any:
    """Log-mel features of 30 s each, [count, 80, 3000], of real speech."""
    features = FeatureExtractor()(load("two_minutes"))[:, : 3000 * 4]
    parts = np.split(np.pad(features, ((0, 0), (0, 12000 - features.shape[1]))), 4, axis=1)
    return get_ctranslate2_storage(np.stack(parts[:count]))


@pytest.mark.benchmark(group="log-mel")
@pytest.mark.parametrize("seconds", [30, 120])
def test_log_mel(benchmark: Any, seconds: int) -> None:
    audio = np.resize(load("two_minutes"), seconds * RATE)
    ours, stock = FeatureExtractor(), reference.FeatureExtractor()
    compare(
        benchmark,
        lambda: ours(audio),
        Timed(lambda: stock(audio)),
        rounds=11,
        audio_seconds=seconds,
    )


@pytest.mark.benchmark(group="encoder")
@pytest.mark.parametrize("batch", [1, 4])
def test_encoder(benchmark: Any, pair: Pair, batch: int) -> None:
    features = windows(batch)
    window = windows(1)
    best = fastest({n: partial(m.model.encode, window) for n, m in pair.stock.items()}).threads
    assert best is not None
    stock = pair.stock[best].model
    compare(
        benchmark,
        lambda: pair.ours.model.encode(features),
        Timed(lambda: stock.encode(features), best),
        audio_seconds=30 * batch,
        rounds=5,
    )
    achieved = batch * encoder_operations(pair) / benchmark.extra_info["ours_s"]
    if pair.compute_type != "float32" and has_tiles():
        # NumPy's product tells nothing of what the tile unit can do.
        benchmark.extra_info.update(operations_per_s=achieved)
        return
    limit = multiply_limit() * (INT8_OPERATIONS if pair.compute_type == "int8" else 1)
    benchmark.extra_info.update(
        gflops=achieved / 1e9, limit_gflops=limit / 1e9, of_limit=achieved / limit
    )


def encoder_operations(pair: Pair, frames: int = 3000) -> float:
    """Floating-point operations of one window: products only, a multiplication and an addition."""
    state, layers = SHAPES[pair.name]
    positions = frames // 2
    convolutions = frames * 3 * pair.ours.model.n_mels * state + positions * 3 * state * state
    layer = positions * (12 * state * state + 2 * positions * state)
    return 2.0 * (convolutions + layers * layer)


@pytest.mark.benchmark(group="decoder step")
@pytest.mark.parametrize("beams", [1, 5])
def test_decoder_step(benchmark: Any, pair: Pair, beams: int) -> None:
    """The difference between long and short runs, which end only where they must."""
    features = windows(1)

    def generate(model: Any, tokens: int) -> Any:
        encoded, prompt, eot = encoded_on[id(model)], prompt_of(model), end_of_text(model)
        (result,) = model.model.generate(
            encoded,
            [prompt],
            beam_size=beams,
            suppress_tokens=[eot],
            suppress_blank=False,
            max_length=2 * tokens,
        )
        assert len(result.sequences_ids[0]) == tokens
        return result.sequences_ids

    sides = (pair.ours, *pair.stock.values())
    encoded_on = {id(model): model.model.encode(features) for model in sides}
    if pair.compute_type == "float32":
        assert generate(pair.ours, MANY) == generate(pair.reference, MANY)
    long = fastest({n: partial(generate, m, MANY) for n, m in pair.stock.items()})
    assert long.threads is not None
    stock = pair.stock[long.threads]
    short, ours_short = Timed(lambda: generate(stock, FEW)), Timed(lambda: generate(pair.ours, FEW))
    ours_long = Timed(lambda: generate(pair.ours, MANY))
    take_turns(benchmark, ours_long, [short, long, ours_short], rounds=5)
    steps = MANY - FEW
    step = (ours_long.median - ours_short.median) / steps
    record(
        benchmark,
        step,
        (long.median - short.median) / steps,
        threads=long.threads,
        ratio_of_minima=(long.least - short.least) / (ours_long.least - ours_short.least),
    )
    achieved, limit = step_bytes(pair) / step, read_limit()
    benchmark.extra_info.update(
        gigabytes_per_s=achieved / 1e9,
        limit_gigabytes_per_s=limit / 1e9,
        of_limit=achieved / limit,
    )


def step_bytes(pair: Pair, positions: int = 1500) -> float:
    """Bytes that a step has to read: weights, embeddings, the window's keys and values."""
    state, layers = SHAPES[pair.name]
    weights = layers * 14 * state * state + pair.ours.hf_tokenizer.get_vocab_size() * state
    memory = layers * 2 * positions * state
    kind = pair.compute_type
    return float(WEIGHT_BYTES[kind] * weights + MEMORY_BYTES[kind] * memory)


def prompt_of(model: Any) -> list[int]:
    """The start of an English transcript without timestamps."""
    names = ["<|startoftranscript|>", "<|notimestamps|>"]
    if model.model.is_multilingual:
        names[1:1] = ["<|en|>", "<|transcribe|>"]
    return [model.hf_tokenizer.token_to_id(name) for name in names]


def end_of_text(model: Any) -> int:
    token: int = model.hf_tokenizer.token_to_id("<|endoftext|>")
    return token


@pytest.mark.benchmark(group="alignment")
def test_alignment(benchmark: Any, pair: Pair) -> None:
    """One window of speech: the decoder over all its tokens, then the warping."""
    features, prompt = windows(1), prompt_of(pair.ours)
    (result,) = pair.reference.model.generate(features, [prompt])
    text = result.sequences_ids[0]

    def align(model: Any) -> Any:
        return model.model.align(encoded_on[id(model)], prompt[:-1], [text], 3000)[0].alignments

    sides = (pair.ours, *pair.stock.values())
    encoded_on = {id(model): model.model.encode(features) for model in sides}
    if pair.compute_type == "float32":
        assert align(pair.ours) == align(pair.reference)
    stock = fastest({n: partial(align, m) for n, m in pair.stock.items()})
    compare(benchmark, lambda: align(pair.ours), stock, audio_seconds=30)
    benchmark.extra_info["tokens"] = len(text)
