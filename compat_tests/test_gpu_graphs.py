"""The graphs of a GPU, executed on the CPU: what `test_engine_parity` does not ask of them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from max.driver import CPU

from compat_tests.support.capturing import MODELS, capturing_model
from compat_tests.support.compare import Transcription, assert_same
from compat_tests.support.engines import (
    EngineCase,
    Engines,
    assert_same_results,
    make_engines,
)
from compat_tests.support.gpu_engine import GPUGraphsWhisper
from compat_tests.support.models import model_directory, reference_transcription, subject
from compat_tests.support.numpy_runtime import storage
from compat_tests.support.recordings import load
from whisper_max_backend.engine.api import devices
from whisper_max_backend.engine.api.generation import GenerationCall
from whisper_max_backend.engine.api.seed import set_random_seed
from whisper_max_backend.engine.checkpoint.load import load_checkpoint
from whisper_max_backend.engine.gpu.captured_graphs import VARIABLE
from whisper_max_backend.engine.gpu.model import GPUModel
from whisper_max_backend.engine.replica import Replica
from whisper_max_backend.engine.search.options import SearchOptions
from whisper_max_backend.engine.whisper import Whisper
from whisper_max_backend.system.cancellation import NEVER, StopFlag

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Engines:
    return make_engines(EngineCase("one-head", GPUGraphsWhisper), tmp_path_factory)


@pytest.mark.parametrize(
    "options",
    [
        {"sampling_topk": 0},
        {"sampling_topk": 0, "num_hypotheses": 5, "sampling_temperature": 0.6},
        {"sampling_topk": 5, "num_hypotheses": 2},
        {"sampling_topk": 0, "beam_size": 3, "sampling_temperature": 0.8},
        {"sampling_topk": 20, "beam_size": 2, "repetition_penalty": 1.2},
    ],
    ids=str,
)
def test_draws_are_those_of_the_cpu(engines: Engines, options: dict[str, Any]) -> None:
    """One seed gives the same tokens, for a batch as well."""
    cpu = Whisper(engines.ours._path, compute_type="float32")
    features = storage(engines.features(3))
    options = {"beam_size": 1, "max_length": 40, "return_scores": True, **options}
    found = []
    for model in (cpu, engines.ours):
        set_random_seed(11)
        found.append(model.generate(features, [engines.prompt()] * 3, **options))
    assert_same_results(*found)


def test_steps_that_cannot_be_captured(
    engines: Engines, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """MAX captures nothing on a CPU: the log says so once, and the tokens are the same."""
    monkeypatch.setenv(VARIABLE, "1")
    model = GPUGraphsWhisper(engines.ours._path, compute_type="float32")
    models: list[Any] = [model, engines.reference]
    caplog.clear()
    for _ in range(2):
        actual, expected = (
            one.generate(storage(engines.features()), [engines.prompt()], max_length=24)
            for one in models
        )
        assert actual[0].sequences_ids == expected[0].sequences_ids
    (record,) = caplog.records
    assert record.getMessage().startswith("decoder steps: device graphs are not used any more: ")


def test_windows_and_prompts_that_are_replayed(engines: Engines) -> None:
    """Each window has its own states and its own probability of silence, also after the next."""
    checkpoint = load_checkpoint(engines.ours._path)
    models = MODELS["gpu graphs"](checkpoint), capturing_model(checkpoint)
    plain, replaying = (Replica(one, checkpoint.vocabulary, checkpoint.config) for one in models)
    windows = [engines.features(seed=seed) for seed in range(4)]
    states = [replaying.encode(window) for window in windows]
    options = SearchOptions(beam_size=2, max_length=12, return_no_speech_prob=True)
    for window, found in zip(windows, states, strict=True):
        np.testing.assert_array_equal(np.array(plain.encode(window)), np.array(found))
        call = GenerationCall(window, [engines.prompt()], options)
        (expected,), (actual,) = plain.generate(call), replaying.generate(call)
        assert actual.sequences_ids == expected.sequences_ids
        assert actual.no_speech_prob == expected.no_speech_prob
    for name in ("encode", "prefill"):
        graph: Any = models[1]._graphs[name]
        assert graph.replays >= 3, name


def test_several_devices(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests are spread over the devices, each of which has the model."""
    opened: list[int] = []

    def open_gpu(index: int) -> Any:
        opened.append(index)
        return CPU()

    monkeypatch.setattr(devices, "gpu_count", lambda: 2)
    monkeypatch.setattr("whisper_max_backend.engine.whisper.open_gpu", open_gpu)

    def engine(path: str, **options: Any) -> Whisper:
        return Whisper(path, device="cuda", device_index=[0, 1], **options)

    used: set[int] = set()
    encode = GPUModel.encode

    def encode_and_tell(self: GPUModel, features: Any, stop: StopFlag = NEVER) -> Any:
        used.add(id(self))
        return encode(self, features, stop)

    monkeypatch.setattr(GPUModel, "encode", encode_and_tell)
    both = make_engines(EngineCase("one-head", engine), tmp_path_factory)
    assert (both.ours.device, both.ours.num_workers, opened) == ("cuda", 2, [0, 1])
    features = [storage(both.features(seed=seed)) for seed in range(4)]
    prompts = [both.prompt()]
    expected = [both.reference.generate(f, prompts, max_length=24)[0] for f in features]
    pending = [
        both.ours.generate(f, prompts, max_length=24, asynchronous=True)[0] for f in features
    ]
    for one, other in zip(expected, pending, strict=True):
        assert other.result().sequences_ids == one.sequences_ids
    assert len(used) == 2


def test_real_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """tiny.en with word times: the transcription is the reference's."""
    monkeypatch.setattr("whisper_max_backend.engine.whisper.Whisper", GPUGraphsWhisper)
    options: dict[str, Any] = {"temperature": 0.0, "word_timestamps": True}
    model = subject().WhisperModel(str(model_directory("tiny.en")), compute_type="float32")
    assert model.feature_extractor.device_kernel is not None
    segments, info = model.transcribe(load("command").copy(), **options)
    expected = reference_transcription("tiny.en", "command", **options)
    assert_same(expected, Transcription(list(segments), info), "device graphs")


def test_transcriptions_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that transcribe other speech with other options; some stop after the first segment.

    Each text is the reference's, whoever else is there, and in the end nothing is left running.
    """
    monkeypatch.setattr("whisper_max_backend.engine.whisper.Whisper", GPUGraphsWhisper)
    model = subject().WhisperModel(str(model_directory("tiny.en")), compute_type="float32")
    cases: list[tuple[str, dict[str, Any]]] = [
        ("jfk", {"beam_size": 5}),
        ("command", {"beam_size": 1}),
        ("command", {"word_timestamps": True}),
        ("jfk", {"beam_size": 3, "without_timestamps": True}),
    ]

    def transcribe(recording: str, options: dict[str, Any]) -> None:
        options = {"temperature": 0.0, **options}
        segments, info = model.transcribe(load(recording).copy(), **options)
        expected = reference_transcription("tiny.en", recording, **options)
        assert_same(expected, Transcription(list(segments), info), f"{recording}, {options}")

    def stop_early(recording: str) -> None:
        segments, _ = model.transcribe(load(recording).copy(), temperature=0.0)
        next(iter(segments))

    with ThreadPoolExecutor(8) as pool:
        pending = [pool.submit(transcribe, *case) for case in cases]
        pending += [pool.submit(stop_early, "jfk") for _ in range(3)]
        for one in pending:
            one.result(600)
    assert (model.model.num_active_batches, model.model.num_queued_batches) == (0, 0)
    model.model.unload_model()
    assert not model.model.model_is_loaded
