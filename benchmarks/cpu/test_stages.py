"""Stage by stage: log-mel, encoder, one decoder step, alignment."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from faster_whisper import feature_extractor as reference
from faster_whisper.transcribe import get_ctranslate2_storage

from benchmarks.cpu.conftest import Pair
from benchmarks.cpu.limits import multiply_limit, read_limit, tile_limit
from benchmarks.cpu.onednn import onednn_rate
from benchmarks.cpu.turns import Timed, Turns
from benchmarks.operations import encoder_operations, step_bytes
from benchmarks.speech import RATE
from compat_tests.support.recordings import load
from whisper_max_backend.engine.compile.cpu_target import has_tiles
from whisper_max_backend.feature_extractor import FeatureExtractor

FEW, MANY = 4, 36
"""Tokens of two runs, whose difference is that of so many steps."""

WEIGHT_BYTES = {"float32": 2, "bfloat16": 2, "int8": 1}
"""Of a weight that a decoder step reads: the models' files hold float16, which stays so."""
MEMORY_BYTES = {"float32": 4, "bfloat16": 2, "int8": 1}
"""Of a cross-attention key or value."""
OPERATIONS = {"float32": 1, "bfloat16": 2, "int8": 4}
"""Numbers that a vector instruction multiplies for one of float32."""


def windows(count: int) -> Any:
    """Log-mel features of 30 s each, [count, 80, 3000], of real speech."""
    features = FeatureExtractor()(load("two_minutes"))[:, : 3000 * 4]
    parts = np.split(np.pad(features, ((0, 0), (0, 12000 - features.shape[1]))), 4, axis=1)
    return get_ctranslate2_storage(np.stack(parts[:count]))


@pytest.mark.benchmark(group="log-mel")
@pytest.mark.parametrize("seconds", [30, 120])
def test_log_mel(turns: Turns, seconds: int) -> None:
    audio = np.resize(load("two_minutes"), seconds * RATE)
    ours, stock = FeatureExtractor(), reference.FeatureExtractor()
    turns.compare(
        lambda: ours(audio),
        Timed(lambda: stock(audio)),
        rounds=11,
        audio_seconds=seconds,
    )


@pytest.mark.benchmark(group="encoder")
@pytest.mark.parametrize("batch", [1, 4])
def test_encoder(turns: Turns, pair: Pair, batch: int) -> None:
    features = windows(batch)
    window = windows(1)
    best = pair.fastest_stock(lambda model: model.model.encode(window)).threads
    assert best is not None
    stock = pair.stock[best].model
    turns.compare(
        lambda: pair.ours.model.encode(features),
        Timed(lambda: stock.encode(features), best),
        audio_seconds=30 * batch,
        rounds=5,
    )
    achieved = batch * encoder_operations(pair.dimensions) / turns.info["ours_s"]
    by_tiles = pair.compute_type != "float32" and has_tiles()
    limit = tile_limit() if by_tiles else multiply_limit() * OPERATIONS[pair.compute_type]
    turns.info.update(gflops=achieved / 1e9, limit_gflops=limit / 1e9, of_limit=achieved / limit)
    if by_tiles and (rate := onednn_rate()):
        turns.info.update(onednn_gflops=rate / 1e9, of_onednn=achieved / rate)


@pytest.mark.benchmark(group="decoder step")
@pytest.mark.parametrize("beams", [1, 5])
def test_decoder_step(turns: Turns, pair: Pair, beams: int) -> None:
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

    encoded_on = encoded_by_all(pair, features)
    if pair.compute_type == "float32":
        assert generate(pair.ours, MANY) == generate(pair.reference, MANY)
    long = pair.fastest_stock(lambda model: generate(model, MANY))
    assert long.threads is not None
    stock = pair.stock[long.threads]
    short, ours_short = Timed(lambda: generate(stock, FEW)), Timed(lambda: generate(pair.ours, FEW))
    ours_long = Timed(lambda: generate(pair.ours, MANY))
    turns.take(ours_long, [short, long, ours_short])
    steps = MANY - FEW
    step = (ours_long.median - ours_short.median) / steps
    turns.note(
        step,
        (long.median - short.median) / steps,
        threads=long.threads,
        ratio_of_minima=(long.least - short.least) / (ours_long.least - ours_short.least),
    )
    kind = pair.compute_type
    needed = step_bytes(pair.dimensions, WEIGHT_BYTES[kind], MEMORY_BYTES[kind])
    achieved, limit = needed / step, read_limit()
    turns.info.update(
        gigabytes_per_s=achieved / 1e9,
        limit_gigabytes_per_s=limit / 1e9,
        of_limit=achieved / limit,
    )


def encoded_by_all(pair: Pair, features: Any) -> dict[int, Any]:
    """What each model's own encoder makes of the features, by the model's `id`."""
    models = (pair.ours, *pair.stock.values())
    return {id(model): model.model.encode(features) for model in models}


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
def test_alignment(turns: Turns, pair: Pair) -> None:
    """One window of speech: the decoder over all its tokens, then the warping."""
    features, prompt = windows(1), prompt_of(pair.ours)
    (result,) = pair.reference.model.generate(features, [prompt])
    text = result.sequences_ids[0]

    def align(model: Any) -> Any:
        return model.model.align(encoded_on[id(model)], prompt[:-1], [text], 3000)[0].alignments

    encoded_on = encoded_by_all(pair, features)
    if pair.compute_type == "float32":
        assert align(pair.ours) == align(pair.reference)
    stock = pair.fastest_stock(align)
    turns.compare(lambda: align(pair.ours), stock, audio_seconds=30)
    turns.info["tokens"] = len(text)
