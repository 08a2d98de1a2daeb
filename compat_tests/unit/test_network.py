"""Encoder, cross-attention and decoder against float64 NumPy, on random weights of many dimensions.

One compiled module serves all dimensions, so these can be many. Inputs are new in every run.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from compat_tests.support.float64_network import Network, random_checkpoint
from compat_tests.support.miniature import ARCHITECTURES, make_model
from compat_tests.support.randomness import rng
from whisper_max_backend.engine.checkpoint.dimensions import Dimensions
from whisper_max_backend.engine.checkpoint.load import load_checkpoint
from whisper_max_backend.engine.compile.cpu_target import has_bfloat16
from whisper_max_backend.engine.cpu.model import CPUModel
from whisper_max_backend.engine.cpu.prebuild import storages
from whisper_max_backend.engine.cpu.weights import packed_weights
from whisper_max_backend.engine.search.protocol import Attention, Sampling, StepRequest
from whisper_max_backend.engine.search.rules import Constraints, FixedRules
from whisper_max_backend.engine.state.decoder_state import DecoderState

TOLERANCES = {"float32": 5e-6, "float16": 5e-6, "bfloat16": 0.02, "mixed": 0.02, "int8": 0.04}
"""Largest relative error, by what matrices are kept in; float16 is widened, so it costs nothing.

Mixed are bfloat16 in the encoder and float16 in the decoder.
"""


def dimensions(
    heads: int, head_size: int, layers: int = 2, mels: int = 80, frames: int = 100
) -> Dimensions:
    """Dimensions of a model; the decoder has one layer more than the encoder."""
    state = heads * head_size
    return Dimensions(
        n_mels=mels,
        n_audio_ctx=frames,
        n_audio_state=state,
        n_audio_head=heads,
        n_audio_layer=layers,
        n_vocab=203,
        n_text_ctx=40,
        n_text_state=state,
        n_text_head=heads,
        n_text_layer=layers + 1,
    )


SHAPES = {
    "one head": dimensions(1, 64, layers=1),
    "whisper's heads": dimensions(3, 64, mels=128, frames=330),
    "small heads": dimensions(3, 32, mels=7),
    "heads of no whole panel": dimensions(5, 20, frames=45),
    "wide": dimensions(9, 64, layers=1, frames=60),
}


@pytest.fixture(
    params=[pytest.param(name, marks=pytest.mark.slow if name == "wide" else ()) for name in SHAPES]
)
def shape(request: pytest.FixtureRequest) -> Dimensions:
    return SHAPES[request.param]


@pytest.fixture(params=TOLERANCES)
def storage(request: pytest.FixtureRequest) -> str:
    if request.param in ("bfloat16", "mixed") and not has_bfloat16():
        pytest.skip("this processor does not multiply bfloat16")
    return str(request.param)


def loaded(shape: Dimensions, storage: str, threads: int = 3) -> tuple[CPUModel, Network]:
    """A random model, and the same in float64."""
    checkpoint = random_checkpoint(
        shape, "float16" if storage in ("float16", "mixed") else "float32"
    )
    compute_types = {"int8": "int8_float32", "bfloat16": "bfloat16", "mixed": "bfloat16"}
    compute_type = compute_types.get(storage, "float32")
    model = CPUModel(checkpoint, compute_type=compute_type, threads=threads)
    return model, Network(checkpoint)


def error(output: np.ndarray, reference: np.ndarray) -> float:
    """Relative error of an array."""
    assert output.shape == reference.shape
    return float(np.linalg.norm(output - reference) / np.linalg.norm(reference))


@pytest.mark.parametrize("threads", [1, 3])
def test_encode(shape: Dimensions, storage: str, threads: int) -> None:
    """Batches, and any number of frames up to the longest."""
    model, network = loaded(shape, storage, threads)
    for batch, frames in [(1, 2 * shape.n_audio_ctx), (3, 17), (2, 2 * shape.n_audio_ctx - 1)]:
        features = rng().normal(0, 0.5, (batch, shape.n_mels, frames))
        features = features.astype(np.float32)
        output = model.encode(features).to_numpy()
        assert error(output, network.encode(features.astype(float))) < TOLERANCES[storage]


def free(rows: int) -> Constraints:
    """No rules."""
    none = np.full((rows, 1), -1, np.int32)
    return Constraints(np.zeros((rows, 2, 2), np.int32), none, none, np.zeros(rows, np.int32))


def all_logits(model: CPUModel, state: DecoderState, tokens: np.ndarray, beams: int) -> np.ndarray:
    """Logits of a step that appends a token to every row."""
    rows = len(tokens)
    scores = np.zeros(rows, np.float32)
    request = StepRequest(tokens, scores, free(rows), beams, 1, Sampling(), return_logits=True)
    step = model.decoder.step(state, request)
    assert step.logits is not None
    return step.logits


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("frames", [1, 45])
@pytest.mark.parametrize("items", [1, 3])
def test_decode(shape: Dimensions, storage: str, threads: int, frames: int, items: int) -> None:
    """A prompt of several tokens, then steps of beams that continue each other's histories."""
    model, network = loaded(shape, storage, threads)
    states = rng().normal(0, 1, (items, frames, shape.n_audio_state)).astype(np.float32)
    beams = 3
    state = model.decoder.start(model.to_device(states), FixedRules(), rows_per_item=beams)
    history = rng().integers(0, shape.n_vocab, (items, 6)).astype(np.int32)
    model.decoder.prefill(state, history)
    items_of = np.repeat(np.arange(items), beams)
    state.reorder(items_of.astype(np.int32))
    history = history[items_of]
    for _ in range(4):
        tokens = rng().integers(0, shape.n_vocab, items * beams).astype(np.int32)
        history = np.concatenate([history, tokens[:, None]], axis=1)
        logits = all_logits(model, state, tokens, beams)
        expected = network.decode(history, states[items_of].astype(float))[:, -1]
        assert error(logits, expected) < TOLERANCES[storage]
        order = (items_of * beams + rng().integers(0, beams, items * beams)).astype(np.int32)
        state.reorder(order)
        history = history[order]


@pytest.mark.parametrize("threads", [1, 3])
def test_the_frames_that_tokens_attend_to(shape: Dimensions, storage: str, threads: int) -> None:
    """By some heads together, among the frames that are not padding.

    Scores are so far apart that int8 finds a frame of half the weight once in a thousand times: the
    best three quarters count.
    """
    model, network = loaded(shape, storage, threads)
    items, frames, content = 3, 40, 33
    states = rng().normal(0, 3, (items, frames, shape.n_audio_state)).astype(np.float32)
    chosen = [(layer, 0) for layer in range(shape.n_text_layer)]
    chosen.append((shape.n_text_layer - 1, shape.n_text_head - 1))
    heads = np.array(chosen, np.int32)
    state = model.decoder.start(model.to_device(states), FixedRules())
    history = np.zeros((items, 0), np.int32)
    found = []
    for _ in range(4):
        tokens = rng().integers(0, shape.n_vocab, items).astype(np.int32)
        request = StepRequest(
            *(tokens, np.zeros(items, np.float32), free(items), 1, 1, Sampling()),
            attention=Attention(heads, content, until=content),
        )
        step = model.decoder.step(state, request)
        history = np.concatenate([history, tokens[:, None]], axis=1)
        network.decode(history, states.astype(float))
        of_heads = [network.cross_weights[layer][:, head, -1, :content] for layer, head in chosen]
        weights = np.sum(of_heads, axis=0)
        assert step.attended is not None
        attended = np.take_along_axis(weights, step.attended[:, None], axis=1)[:, 0]
        found.append(attended / weights.max(axis=1))
    # Where two frames are as good as equal, rounding decides.
    assert np.quantile(found, 0.25, method="lower") >= 1 - 10 * TOLERANCES[storage], found


def test_long_prompts_of_many_items(storage: str) -> None:
    """More rows than go through the layers together."""
    shape = SHAPES["whisper's heads"]
    model, network = loaded(shape, storage)
    items, length = 11, 37
    states = rng().normal(0, 1, (items, 20, shape.n_audio_state)).astype(np.float32)
    history = rng().integers(0, shape.n_vocab, (items, length)).astype(np.int32)
    state = model.decoder.start(model.to_device(states), FixedRules())
    model.decoder.prefill(state, history)
    tokens = rng().integers(0, shape.n_vocab, items).astype(np.int32)
    history = np.concatenate([history, tokens[:, None]], axis=1)
    logits = all_logits(model, state, tokens, 1)
    expected = network.decode(history, states.astype(float))[:, -1]
    assert error(logits, expected) < TOLERANCES[storage]


@pytest.mark.parametrize(
    "frame",
    # An emulated processor, where they are slow, has enough of one.
    [pytest.param(0, marks=pytest.mark.slow), 80, pytest.param(99, marks=pytest.mark.slow)],
)
def test_a_frame_outweighs_all_others(storage: str, frame: int) -> None:
    """By more than float32 can hold, wherever it is; or has no weight, for other queries.

    A query near the balance amplifies all errors. With int8 one item in six has such a query among
    its heads, layers and tokens, and a wrong maximum spoils nearly all: the best quarter counts.
    """
    shape = SHAPES["whisper's heads"]
    model, network = loaded(shape, storage)
    items, length = 22, 25
    states = rng().normal(0, 1, (items, 100, shape.n_audio_state)).astype(np.float32)
    states[:, frame] *= 100
    state = model.decoder.start(model.to_device(states), FixedRules())
    history = rng().integers(0, shape.n_vocab, (items, length)).astype(np.int32)
    model.decoder.prefill(state, history[:, :-1])
    logits = all_logits(model, state, history[:, -1], 1)
    expected = network.decode(history, states.astype(float))[:, -1]
    errors = [error(*rows) for rows in zip(logits, expected, strict=True)]
    assert np.isfinite(logits).all()
    assert np.quantile(errors, 0.25) < TOLERANCES[storage]


@pytest.mark.parametrize("gain", [0.0, 1e-6, 100.0])
def test_gains_that_stand_out(storage: str, gain: float) -> None:
    """Where embeddings are multiplied by the gains of the last normalisation, none is lost."""
    shape = SHAPES["whisper's heads"]
    checkpoint = random_checkpoint(shape)
    weights = dict(checkpoint.weights)
    gains = weights["decoder/layer_norm/gamma"].copy()
    gains[7] = gain
    weights |= {"decoder/layer_norm/gamma": gains}
    weights["decoder/embeddings/weight"] = weights["decoder/embeddings/weight"] + np.float32(3)
    changed = replace(checkpoint, weights=weights)
    compute_type = {"int8": "int8_float32", "bfloat16": "bfloat16"}.get(storage, "float32")
    model, network = CPUModel(changed, compute_type=compute_type, threads=3), Network(changed)
    items = 5
    states = rng().normal(0, 1, (items, 20, shape.n_audio_state)).astype(np.float32)
    history = rng().integers(0, shape.n_vocab, (items, 6)).astype(np.int32)
    state = model.decoder.start(model.to_device(states), FixedRules())
    model.decoder.prefill(state, history[:, :-1])
    logits = all_logits(model, state, history[:, -1], 1)
    expected = network.decode(history, states.astype(float))[:, -1]
    # All of the error is one number's where that is multiplied by 100.
    assert error(logits, expected) < 3 * TOLERANCES[storage]


def test_packing_leaves_a_mapped_file_as_it_was(tmp_path: Path) -> None:
    """Its memory is let go of part by part; what is asked for later is read again."""
    make_model(tmp_path, ARCHITECTURES["one-head"])
    checkpoint = load_checkpoint(tmp_path)
    before = {name: value.copy() for name, value in checkpoint.weights.items()}
    first, second = (packed_weights(checkpoint, storages()[-1], 2) for _ in range(2))
    for name, value in before.items():
        np.testing.assert_array_equal(checkpoint.weights[name], value)
    for part in ("encoder", "cross_kv", "decoder", "embeddings"):
        blobs = (getattr(weights, part).to_numpy() for weights in (first, second))
        np.testing.assert_array_equal(*blobs)
