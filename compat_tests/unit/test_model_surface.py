"""WhisperModel and BatchedInferencePipeline have the reference's surface, and clear errors."""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
import io
import pickle
import types
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import ctranslate2
import faster_whisper
import numpy as np
import pytest
import tokenizers
from faster_whisper.feature_extractor import FeatureExtractor as ReferenceFeatureExtractor
from huggingface_hub.errors import LocalEntryNotFoundError

import whisper_max_backend
from compat_tests.support.miniature import ARCHITECTURES, make_model
from compat_tests.support.models import our_model
from compat_tests.support.numpy_runtime import NumpyWhisper
from whisper_max_backend import audio, model
from whisper_max_backend.feature_extractor import FeatureExtractor

CLASSES = ("WhisperModel", "BatchedInferencePipeline")
METHODS = [
    (name, method)
    for name in CLASSES
    for method, value in vars(getattr(faster_whisper, name)).items()
    if inspect.isfunction(value)
]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small multilingual model that takes 30 seconds of audio."""
    return make_model(
        tmp_path_factory.mktemp("surface"),
        dataclasses.replace(ARCHITECTURES["one-head"], n_audio_ctx=1500),
    )


@pytest.fixture(scope="module")
def reference(directory: Path) -> faster_whisper.WhisperModel:
    return faster_whisper.WhisperModel(str(directory), device="cpu")


@pytest.fixture
def numpy_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models load at once: nothing is compiled."""
    monkeypatch.setattr("whisper_max_backend.engine.whisper.Whisper", NumpyWhisper)


@pytest.fixture
def ours(directory: Path, numpy_engine: None) -> whisper_max_backend.WhisperModel:
    loaded = whisper_max_backend.WhisperModel(str(directory), device="cpu")
    loaded.feature_extractor = ReferenceFeatureExtractor(**loaded.feat_kwargs)
    return loaded


@pytest.mark.parametrize("name", CLASSES)
def test_subclasses(name: str) -> None:
    ours, theirs = getattr(whisper_max_backend, name), getattr(faster_whisper, name)
    assert issubclass(ours, theirs)
    assert not hasattr(ours, "__slots__")


def test_the_module_that_programs_ask_for() -> None:
    assert whisper_max_backend.WhisperModel.__module__.startswith("faster_whisper.")


class OfAnotherProgram(whisper_max_backend.WhisperModel):
    """A subclass, which pickle finds in its own module."""


@pytest.mark.parametrize("protocol", [0, 2, pickle.HIGHEST_PROTOCOL])
@pytest.mark.parametrize(
    "cls",
    [
        whisper_max_backend.WhisperModel,
        whisper_max_backend.BatchedInferencePipeline,
        OfAnotherProgram,
    ],
)
def test_classes_are_pickled_by_their_own_names(cls: type, protocol: int) -> None:
    passed = functools.partial(cls, "tiny", device="cpu")
    found, partial = pickle.loads(pickle.dumps((cls, passed), protocol))
    assert found is partial.func is cls
    assert (partial.args, partial.keywords) == (passed.args, passed.keywords)


def test_a_loaded_model_is_not_pickled(ours: Any, reference: Any) -> None:
    for loaded in (ours, ours.model, whisper_max_backend.BatchedInferencePipeline(ours)):
        with pytest.raises(TypeError, match="have the other process load it"):
            pickle.dumps(loaded)
        with pytest.raises(TypeError, match="cannot pickle"):
            copy.deepcopy(loaded)
    with pytest.raises(TypeError):
        pickle.dumps(reference)


ADDED = {"transcribe": ["progress", "cancel", "guards"]}
"""What methods take besides what the reference's do."""


@pytest.mark.parametrize(("name", "method"), METHODS)
def test_signatures(name: str, method: str) -> None:
    ours, theirs = getattr(whisper_max_backend, name), getattr(faster_whisper, name)
    assert inspect.signature(ours) == inspect.signature(theirs)
    found = inspect.signature(getattr(ours, method))
    added = ADDED.get(method, [])
    assert [found.parameters[keyword].kind for keyword in added] == [
        inspect.Parameter.KEYWORD_ONLY for _ in added
    ]
    kept = [p for p in found.parameters.values() if p.name not in added]
    assert found.replace(parameters=kept) == inspect.signature(getattr(theirs, method))
    lines = (getattr(ours, method).__doc__ or "").splitlines()
    for line in (getattr(theirs, method).__doc__ or "").splitlines():
        lines.remove(line)
    assert bool(lines) == bool(added)
    assert all(any(f"  {keyword}: " in line for line in lines) for keyword in added)


def test_the_constructor_takes_what_its_signature_says() -> None:
    def parameters(follow_wrapped: bool) -> list[tuple[str, Any, Any]]:
        signature = inspect.signature(
            whisper_max_backend.WhisperModel.__init__, follow_wrapped=follow_wrapped
        )
        return [(p.name, p.kind, p.default) for p in signature.parameters.values()]

    assert parameters(follow_wrapped=False) == parameters(follow_wrapped=True)


def test_attributes(
    directory: Path, numpy_engine: None, reference: faster_whisper.WhisperModel
) -> None:
    """When a new faster-whisper sets another attribute, this notices."""
    ours = whisper_max_backend.WhisperModel(str(directory), device="cpu")
    assert vars(ours).keys() == vars(reference).keys()
    for name in vars(reference).keys() - {"model", "feature_extractor", "hf_tokenizer"}:
        assert getattr(ours, name) == getattr(reference, name), name
    assert ours.hf_tokenizer.to_str() == reference.hf_tokenizer.to_str()
    assert isinstance(ours.feature_extractor, FeatureExtractor)
    assert vars(ours.feature_extractor).keys() == vars(reference.feature_extractor).keys()
    assert ours.supported_languages == reference.supported_languages
    pipelines = [
        package.BatchedInferencePipeline(loaded)
        for package, loaded in ((whisper_max_backend, ours), (faster_whisper, reference))
    ]
    assert vars(pipelines[0]).keys() == vars(pipelines[1]).keys()


def test_files_in_memory(directory: Path, numpy_engine: None) -> None:
    # The numpy engine's reference needs the directory, so the name is the path.
    files: dict[str, Any] = {path.name: path.read_bytes() for path in directory.iterdir()}
    given = dict(files)
    ours = whisper_max_backend.WhisperModel(str(directory), device="cpu", files=files)
    assert files == given, "the caller's dictionary is his"
    theirs = faster_whisper.WhisperModel("a name", device="cpu", files=dict(files))
    assert ours.hf_tokenizer.to_str() == theirs.hf_tokenizer.to_str()
    assert ours.feat_kwargs == theirs.feat_kwargs


def test_arguments_reach_the_engine(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    received: dict[str, Any] = {}

    def engine(path: str, **options: Any) -> types.SimpleNamespace:
        received.update(options, path=path)
        return types.SimpleNamespace(is_multilingual=True, log_mel=None)

    monkeypatch.setattr("whisper_max_backend.engine.whisper.Whisper", engine)
    options: dict[str, Any] = {
        "compute_type": "int8",
        "cpu_threads": 3,
        "num_workers": 2,
        "device_index": [0],
    }
    ours = whisper_max_backend.WhisperModel(str(directory), "cpu", max_queued_batches=5, **options)
    monkeypatch.setattr(ctranslate2.models, "Whisper", engine)
    expected, received = received, {}
    faster_whisper.WhisperModel(str(directory), "cpu", max_queued_batches=5, **options)
    assert received == expected
    assert ours.model.is_multilingual


# Models without a tokenizer


@pytest.mark.parametrize(
    ("multilingual", "languages", "published"),
    [(False, 1, "whisper-tiny.en"), (True, 99, "whisper-tiny"), (True, 100, "whisper-large-v3")],
)
def test_tokenizer_from_the_hub(
    multilingual: bool,
    languages: int,
    published: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hub = types.SimpleNamespace(from_pretrained=lambda name: name)
    monkeypatch.setattr(tokenizers, "Tokenizer", hub)
    engine: Any = types.SimpleNamespace(is_multilingual=multilingual, num_languages=languages)
    found: Any = model._tokenizer(str(tmp_path), None, engine)
    assert found == f"openai/{published}"


def test_no_tokenizer_and_no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(name: str) -> None:
        raise Exception("no route to host")

    hub = types.SimpleNamespace(from_pretrained=unreachable)
    monkeypatch.setattr(tokenizers, "Tokenizer", hub)
    engine: Any = types.SimpleNamespace(is_multilingual=False)
    with pytest.raises(RuntimeError, match="no tokenizer.json.*no route to host"):
        model._tokenizer(str(tmp_path), None, engine)


# Models that are not there: the reference's exception types, and what to do


def test_missing_directory(tmp_path: Path) -> None:
    for package in (faster_whisper, whisper_max_backend):
        with pytest.raises(ValueError, match=str(tmp_path / "absent")) as raised:
            package.WhisperModel(str(tmp_path / "absent"))
    assert "neither a directory" in str(raised.value)


def test_unknown_size() -> None:
    for package in (faster_whisper, whisper_max_backend):
        with pytest.raises(ValueError, match="enormous.*large-v3-turbo"):
            package.WhisperModel("enormous")


def test_empty_directory(tmp_path: Path) -> None:
    for package in (faster_whisper, whisper_max_backend):
        with pytest.raises(RuntimeError, match="model.bin"):
            package.WhisperModel(str(tmp_path), device="cpu")


def test_hub_without_network(tmp_path: Path) -> None:
    for package in (faster_whisper, whisper_max_backend):
        with pytest.raises(LocalEntryNotFoundError):
            package.WhisperModel("nobody/nothing", download_root=str(tmp_path))


# Bad audio

ENTRANCES: list[Callable[[Any, Any], Any]] = [
    lambda ours, audio: ours.transcribe(audio),
    lambda ours, audio: ours.transcribe(audio=audio, language="en"),
    lambda ours, audio: whisper_max_backend.BatchedInferencePipeline(ours).transcribe(audio),
]
every_entrance = pytest.mark.parametrize("transcribe", ENTRANCES)


@every_entrance
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers(
    ours: Any, transcribe: Callable[[Any, Any], Any], value: float
) -> None:
    samples = np.zeros(audio._BLOCK + 2000, np.float32)
    samples[audio._BLOCK + 7] = samples[-1] = value
    with pytest.raises(ValueError, match=rf"sample {audio._BLOCK + 7} is {value}.*nan_to_num"):
        transcribe(ours, samples)


def test_language_detection_refuses_them_too(ours: Any) -> None:
    with pytest.raises(ValueError, match="sample 3 is nan"):
        ours.detect_language(np.array([0, 0, 0, np.nan], np.float32))


@every_entrance
@pytest.mark.parametrize("shape", [(), (16000, 2), (2, 16000)])
def test_several_channels(
    ours: Any, transcribe: Callable[[Any, Any], Any], shape: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match="one channel"):
        transcribe(ours, np.zeros(shape, np.float32))


def test_what_is_left_as_it_is() -> None:
    for samples in (np.zeros(0), np.zeros(9, np.float64), np.arange(9, dtype=np.int16)):
        assert audio.checked_audio(samples, 16000) is samples


@pytest.fixture
def silent_film(tmp_path: Path) -> Path:
    path = tmp_path / "film.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for packet in (*stream.encode(av.VideoFrame(64, 64, "yuv420p")), *stream.encode(None)):
            container.mux(packet)
    return path


@every_entrance
def test_a_file_without_sound(
    ours: Any, transcribe: Callable[[Any, Any], Any], silent_film: Path, reference: Any
) -> None:
    with pytest.raises(IndexError):
        reference.transcribe(str(silent_film))
    with pytest.raises(IndexError, match=r"film.mkv.*no audio stream") as raised:
        transcribe(ours, str(silent_film))
    assert isinstance(raised.value, ValueError)
    with pytest.raises(IndexError, match=r"film.mkv.*no audio stream"), silent_film.open("rb") as f:
        transcribe(ours, f)


@every_entrance
@pytest.mark.parametrize("content", [b"", b"hello " * 100, bytes(range(256)) * 20])
def test_a_file_that_is_no_audio(
    ours: Any,
    transcribe: Callable[[Any, Any], Any],
    content: bytes,
    tmp_path: Path,
    reference: Any,
) -> None:
    path = tmp_path / "notes.dat"
    path.write_bytes(content)
    for source in (lambda: str(path), lambda: io.BytesIO(content)):
        with pytest.raises(av.error.FFmpegError) as expected:
            reference.transcribe(source())
        with pytest.raises(expected.type, match="no audio that can be decoded") as raised:
            transcribe(ours, source())
        assert raised.type is expected.type
        assert raised.value.errno == expected.value.errno
        assert raised.value.filename == expected.value.filename


@every_entrance
def test_a_file_that_is_not_there(
    ours: Any, transcribe: Callable[[Any, Any], Any], tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError, match="absent.wav"):
        transcribe(ours, str(tmp_path / "absent.wav"))
    with pytest.raises(IsADirectoryError, match=str(tmp_path)):
        transcribe(ours, str(tmp_path))


def test_unknown_language_and_task(ours: Any, reference: Any) -> None:
    samples = np.zeros(1600, np.float32)
    cases: list[dict[str, Any]] = [{"language": "xx"}, {"language": "en", "task": "sing"}]
    for options in cases:
        messages = []
        for asked in (
            *(ours, whisper_max_backend.BatchedInferencePipeline(ours)),
            *(reference, faster_whisper.BatchedInferencePipeline(reference)),
        ):
            with pytest.raises(ValueError, match="is not a valid") as raised:
                asked.transcribe(samples, **options)
            messages.append(str(raised.value))
        assert len(set(messages)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("batched", [False, True])
def test_empty_audio(batched: bool, tmp_path: Path) -> None:
    """Nothing in, nothing out, as in the reference."""
    with wave.open(str(tmp_path / "empty.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
    asked: Any = our_model("tiny.en")
    if batched:
        asked = whisper_max_backend.BatchedInferencePipeline(asked)
    for source in (np.zeros(0, np.float32), str(tmp_path / "empty.wav")):
        segments, info = asked.transcribe(source)
        assert list(segments) == []
        assert info.duration == 0
