"""Steps that the decoder makes before they are asked for: the same ones, and fewer executions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compat_tests.support.capturing import capturing_model
from compat_tests.support.decoding_case import make_livelier
from compat_tests.support.gpu_engine import GPUGraphsWhisper
from compat_tests.support.miniature import ARCHITECTURES, vocabulary_tokens
from whisper_max_backend.engine.checkpoint.load import Checkpoint
from whisper_max_backend.engine.cpu.decoder import CPUDecoder
from whisper_max_backend.engine.gpu.decoder import GPUDecoder
from whisper_max_backend.engine.gpu.model import GPUModel
from whisper_max_backend.engine.search import beam
from whisper_max_backend.engine.state.decoder import Decoder
from whisper_max_backend.engine.state.decoder_state import DecoderState
from whisper_max_backend.engine.whisper import Whisper

pytestmark = pytest.mark.timeout(900)  # a miniature may have to be compiled

ARCHITECTURE = ARCHITECTURES["one-head"]
TOKENS = {token: id for id, token in enumerate(vocabulary_tokens(ARCHITECTURE))}


class ReplayingWhisper(GPUGraphsWhisper):
    """The engine over the graphs of a GPU, with steps that are replayed."""

    def _load_device_model(self, checkpoint: Checkpoint, device_index: int) -> GPUModel:
        return capturing_model(checkpoint)


ENGINES: dict[str, tuple[type[Whisper], str, int]] = {
    "cpu": (Whisper, "float32", 0),
    "cpu, int8": (Whisper, "int8_float32", 5),
    "gpu graphs": (GPUGraphsWhisper, "float32", 5),
    "gpu graphs, replayed": (ReplayingWhisper, "float32", 0),
}
"""And the type that they compute in, and the seed of their models' weights."""


@pytest.fixture(scope="module", params=list(ENGINES))
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Whisper:
    directory: Path = tmp_path_factory.mktemp("miniature")
    engine, compute_type, seed = ENGINES[request.param]
    make_livelier(directory, seed)
    return engine(str(directory), compute_type=compute_type)


def look_ahead(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Every decoder makes so many steps at once."""
    for decoder in (CPUDecoder, GPUDecoder):
        monkeypatch.setattr(decoder, "steps_ahead", steps)


def generate(model: Whisper, windows: int, timestamps: bool, **options: Any) -> list[Any]:
    names = ["<|startoftranscript|>", "<|en|>", "<|transcribe|>"]
    names += [] if timestamps else ["<|notimestamps|>"]
    noise = np.random.default_rng(1).standard_normal((windows, ARCHITECTURE.n_mels, 60))
    prompts = [[TOKENS[name] for name in names]] * windows
    # The graphs of a GPU are slow on a CPU.
    options = {"max_length": 120 if type(model) is Whisper else 60, **options}
    results: list[Any] = model.generate(
        noise.astype(np.float32), prompts, return_scores=True, **options
    )
    return [(result.sequences_ids, result.scores) for result in results]


class Watched:
    """What becomes of the steps of all requests."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.executed = self.made_ahead = self.taken = 0
        next_step = Decoder.next_step
        keep_ahead, take_ahead = DecoderState.keep_ahead, DecoderState.take_ahead

        def counted_step(*args: Any, **kwargs: Any) -> Any:
            self.executed += 1
            return next_step(*args, **kwargs)

        def counted_keep(state: DecoderState, steps: Any) -> None:
            steps = list(steps)
            self.made_ahead += len(steps)
            keep_ahead(state, steps)

        def counted_take(state: DecoderState, tokens: Any) -> Any:
            found = take_ahead(state, tokens)
            self.taken += found is not None
            return found

        monkeypatch.setattr(Decoder, "next_step", counted_step)
        monkeypatch.setattr(DecoderState, "keep_ahead", counted_keep)
        monkeypatch.setattr(DecoderState, "take_ahead", counted_take)


@pytest.mark.parametrize("timestamps", [False, True])
@pytest.mark.parametrize("windows", [1, 3])
@pytest.mark.parametrize(
    "options",
    [
        {"beam_size": 1},
        {"beam_size": 2},
        {"beam_size": 5},
        {"beam_size": 5, "patience": 2.0, "num_hypotheses": 3},
        {"beam_size": 5, "length_penalty": 0.0},
        {"beam_size": 5, "max_length": 21},
        {"beam_size": 3, "suppress_blank": False, "suppress_tokens": [30, 31]},
    ],
    ids=str,
)
def test_steps_ahead_are_those_that_are_asked_for(
    model: Whisper,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    windows: int,
    timestamps: bool,
) -> None:
    """The same sequences and the same scores, to the bit, whether steps are made one by one.

    A GPU goes on with windows that are done, and with fewer rows it sums in another order.
    """
    watched = Watched(monkeypatch)
    look_ahead(monkeypatch, 1)
    one_by_one = generate(model, windows, timestamps, **options)
    steps = watched.executed
    assert watched.made_ahead == 0
    for ahead in (2, 8) if type(model) is Whisper else (8,):
        watched.executed = watched.made_ahead = watched.taken = 0
        look_ahead(monkeypatch, ahead)
        found = generate(model, windows, timestamps, **options)
        if windows == 1 or type(model) is Whisper:
            assert found == one_by_one
        for (ids, scores), (expected_ids, expected_scores) in zip(found, one_by_one, strict=True):
            assert ids == expected_ids
            assert scores == pytest.approx(expected_scores, rel=1e-5)
        assert watched.executed + watched.taken == steps
        assert watched.taken > 0
        if windows == 1 and options.get("length_penalty") != 0:
            in_vain = watched.made_ahead - watched.taken
            assert in_vain < (1 if type(model) is Whisper else ahead)


@pytest.mark.parametrize(
    "options",
    [
        {"beam_size": 5, "repetition_penalty": 1.3},
        {"beam_size": 5, "no_repeat_ngram_size": 2},
        {"beam_size": 1, "sampling_topk": 0, "sampling_temperature": 0.7},
        {"beam_size": 1, "return_logits_vocab": True},
    ],
    ids=str,
)
def test_what_cannot_be_made_ahead(
    model: Whisper, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    watched = Watched(monkeypatch)
    generate(model, 1, True, **options)
    assert watched.executed > 0
    assert watched.made_ahead == 0


def test_another_step_than_the_one_made_ahead(
    model: Whisper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search that goes elsewhere is answered as if nothing had been made ahead."""
    register = beam.BeamSearch._register

    def swapped(self: Any, step: int, *args: Any) -> tuple[list[int], bool]:
        kept, ended = register(self, step, *args)
        return (kept[::-1] if step % 3 == 0 else kept), ended

    monkeypatch.setattr(beam.BeamSearch, "_register", swapped)
    watched = Watched(monkeypatch)
    found = generate(model, 1, True, beam_size=5)
    assert 0 < watched.taken < watched.made_ahead
    look_ahead(monkeypatch, 1)
    assert generate(model, 1, True, beam_size=5) == found
