"""Bad input, end to end: the exception type of the reference, and a message that helps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import ctranslate2
import faster_whisper
import numpy as np
import pytest

from compat_tests.support.errors import same_error
from compat_tests.support.miniature import make_model
from compat_tests.support.models import engine_class, subject
from compat_tests.support.recordings import SAMPLING_RATE, audio_file, load, write_wav

SECOND = np.zeros(SAMPLING_RATE, np.float32)
SPEECH = load("jfk")[: 2 * SAMPLING_RATE]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A miniature with the 30 s windows that `transcribe` always makes."""
    return make_model(tmp_path_factory.mktemp("miniature"), "deep-encoder")


@pytest.fixture(scope="module")
def models(directory: Path) -> tuple[Any, Any]:
    """The reference's model and ours."""
    options = {"device": "cpu", "compute_type": "float32"}
    return (
        faster_whisper.WhisperModel(str(directory), **options),
        subject().WhisperModel(str(directory), **options),
    )


# -- audio


def transcribe_both(models: tuple[Any, Any], audio: Any, *words: str, **options: Any) -> None:
    """Transcribing fails alike, at once or when the segments are asked for."""
    options = {"temperature": 0.0, "language": "en", **options}

    def run(model: Any) -> None:
        segments, _ = model.transcribe(audio, **options)
        list(segments)

    same_error(lambda: run(models[0]), lambda: run(models[1]), *words)


def test_no_audio_file(models: tuple[Any, Any], tmp_path: Path) -> None:
    text = tmp_path / "notes.wav"
    text.write_text("these are words, but nobody speaks them\n" * 20)
    transcribe_both(models, str(text), "notes.wav")
    text.write_bytes(b"")
    transcribe_both(models, str(text), "notes.wav")


def test_missing_audio_file(models: tuple[Any, Any], tmp_path: Path) -> None:
    transcribe_both(models, str(tmp_path / "absent.wav"), "absent.wav")


def test_audio_of_an_unknown_codec(models: tuple[Any, Any], tmp_path: Path) -> None:
    """It opens, and fails in the decoder, which does not know the file's name."""
    path = tmp_path / "foreign.wav"
    write_wav(path, SECOND)
    content = path.read_bytes()
    path.write_bytes(content[:20] + b"\x99\x99" + content[22:])
    transcribe_both(models, str(path), "foreign.wav", "decoder not found")
    with path.open("rb") as file, pytest.raises(av.error.FFmpegError, match="foreign.wav"):
        models[1].transcribe(file)


@pytest.mark.parametrize("rate", [1, 1 << 30])
def test_a_sampling_rate_that_is_none(models: tuple[Any, Any], tmp_path: Path, rate: int) -> None:
    """The reference takes gigabytes to resample a second's bytes, so it is not asked."""
    path = tmp_path / "rate.wav"
    write_wav(path, SECOND)
    content = path.read_bytes()
    path.write_bytes(content[:24] + rate.to_bytes(4, "little") + content[28:])
    with pytest.raises(ValueError, match=f"rate.wav.*{rate} Hz"):
        models[1].transcribe(str(path))
    with path.open("rb") as file, pytest.raises(ValueError, match=f"rate.wav.*{rate} Hz"):
        models[1].transcribe(file)


def test_truncated_audio_file(models: tuple[Any, Any], tmp_path: Path) -> None:
    """Half of a file is transcribed as far as it goes."""
    content = audio_file("command.flac").read_bytes()
    half = tmp_path / "half.flac"
    half.write_bytes(content[: len(content) // 2])
    durations = [
        model.transcribe(str(half), temperature=0.0, language="en")[1].duration for model in models
    ]
    assert durations[0] == durations[1] > 0.5


@pytest.mark.parametrize("samples", [0, 1, 159, 401])
def test_empty_audio(models: tuple[Any, Any], samples: int) -> None:
    """Nothing, or less than a frame: what the reference makes of it, without an error."""
    audio = np.zeros(samples, np.float32)
    expected, actual = (
        model.transcribe(audio, temperature=0.0, language="en", max_new_tokens=4)
        for model in models
    )
    assert [s.tokens for s in actual[0]] == [s.tokens for s in expected[0]]
    assert actual[1].duration == expected[1].duration


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize("position", [0, 7999, -1])
def test_samples_that_are_no_numbers(models: tuple[Any, Any], value: float, position: int) -> None:
    """The reference transcribes nonsense there; here it is an error that says where."""
    audio = SECOND.copy()
    audio[position] = value
    index = str(position % len(audio))
    with pytest.raises(ValueError, match=index):
        models[1].transcribe(audio)
    with pytest.raises(ValueError, match=index):
        models[1].detect_language(audio)
    with pytest.raises(ValueError, match=index):
        subject().BatchedInferencePipeline(models[1]).transcribe(audio)


def test_several_channels(models: tuple[Any, Any]) -> None:
    transcribe_both(models, np.zeros((2, 400), np.float32), "channel")


@pytest.mark.parametrize("audio", [None, [0.0] * 100, 17], ids=["none", "list", "number"])
def test_no_audio_at_all(models: tuple[Any, Any], audio: object) -> None:
    transcribe_both(models, audio)


@pytest.mark.parametrize(
    ("audio", "word"),
    [
        (b"RIFF", "io.BytesIO"),
        (bytearray(b"RIFF"), "io.BytesIO"),
        (memoryview(b"RIFF"), "io.BytesIO"),
        (np.float32(1), "channel"),
        (np.array(["a", "b"]), "numbers"),
        (np.array([1.0, object()]), "numbers"),
        ("this is said, not a file", "this is said"),
    ],
    ids=["bytes", "bytearray", "memoryview", "scalar", "text", "objects", "no-file"],
)
def test_what_is_no_audio(models: tuple[Any, Any], audio: object, word: str) -> None:
    transcribe_both(models, audio, word)


@pytest.mark.parametrize("dtype", ["i2", "i4", "u1", "?", "f2", "f8", "O"])
def test_samples_of_any_type(models: tuple[Any, Any], dtype: str) -> None:
    """No scale is guessed for whole numbers: what the reference hears is heard."""
    audio = (SPEECH * (1 if dtype in ("f2", "f8", "O") else 100)).astype(dtype)
    both_hear(models, audio, audio)


@pytest.mark.parametrize("shape", [(1, -1), (1, 1, -1)])
def test_a_leading_axis_of_one_channel(models: tuple[Any, Any], shape: tuple[int, ...]) -> None:
    """As libraries load mono; the reference takes gigabytes and fails, or hears the same."""
    both_hear(models, SPEECH, SPEECH.reshape(shape))
    assert models[1].detect_language(SPEECH[None]) == models[1].detect_language(SPEECH)


def test_a_trailing_axis_is_refused(models: tuple[Any, Any]) -> None:
    """A channel a column; the reference hears as many channels of a sample each."""
    for audio in (np.zeros((16000, 1), np.float32), np.zeros((1, 16000, 2), np.float32)):
        with pytest.raises(ValueError, match="one channel"):
            models[1].transcribe(audio)


class Tensor:
    """Stands for those of other libraries, with one protocol of theirs."""

    def __init__(self, samples: np.ndarray, protocol: str) -> None:
        setattr(self, protocol, getattr(samples, protocol))
        if protocol == "__dlpack__":
            self.__dlpack_device__ = samples.__dlpack_device__


class ArrayTensor(Tensor):
    def __init__(self, samples: np.ndarray, protocol: str) -> None:
        self._samples = samples

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self._samples


@pytest.mark.parametrize("protocol", ["__array__", "__array_interface__", "__dlpack__"])
@pytest.mark.parametrize("shape", [(-1,), (1, -1)])
def test_tensors(models: tuple[Any, Any], protocol: str, shape: tuple[int, ...]) -> None:
    kind = ArrayTensor if protocol == "__array__" else Tensor
    tensor = kind(SPEECH.reshape(shape), protocol)
    both_hear(models, SPEECH, tensor)
    assert models[1].detect_language(tensor) == models[1].detect_language(SPEECH)
    pipeline = subject().BatchedInferencePipeline(models[1])
    assert pipeline.transcribe(tensor, language="en")[1].duration == 2.0


def test_a_tensor_out_of_reach(models: tuple[Any, Any]) -> None:
    class OnGpu:
        def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
            raise TypeError("can't convert cuda:0 device type tensor to numpy")

    with pytest.raises(ValueError, match=r"OnGpu.*cuda:0.*\.cpu\(\)"):
        models[1].transcribe(OnGpu())


def both_hear(models: tuple[Any, Any], expected: Any, actual: Any) -> None:
    """Ours hears in `actual` what the reference hears in `expected`."""
    heard = []
    for model, audio in zip(models, (expected, actual), strict=True):
        segments, info = model.transcribe(audio, temperature=0.0, max_new_tokens=8)
        list(segments)
        heard.append((info.duration, info.language, info.language_probability))
    assert heard[1][:2] == heard[0][:2]
    assert heard[1][2] == pytest.approx(heard[0][2], rel=1e-4)


# -- options


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"language": "xx"}, "xx"),
        ({"task": "sing"}, "sing"),
        ({"beam_size": 0}, "beam"),
        ({"beam_size": -1}, "beam_size"),
        ({"beam_size": 2.5}, "beam_size"),
        ({"patience": 0.0}, "patience"),
        ({"patience": -1.0}, "patience"),
        ({"repetition_penalty": 0.0}, "repetition"),
        ({"max_new_tokens": 1000}, "1000"),
        ({"clip_timestamps": "a,b"}, "a"),
        ({"vad_filter": True, "vad_parameters": {"treshold": 0.5}}, "treshold"),
        ({"no_such_option": 1}, "no_such_option"),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, dict) else "",
)
def test_options(models: tuple[Any, Any], options: dict[str, Any], word: str) -> None:
    transcribe_both(models, SECOND, word, **options)


def test_batched_without_clips(models: tuple[Any, Any]) -> None:
    audio = np.zeros(40 * SAMPLING_RATE, np.float32)
    reference = faster_whisper.BatchedInferencePipeline(models[0])
    ours = subject().BatchedInferencePipeline(models[1])
    same_error(
        lambda: reference.transcribe(audio, vad_filter=False),
        lambda: ours.transcribe(audio, vad_filter=False),
        "clip",
    )


# -- the engine's own arguments


@pytest.fixture(scope="module")
def engines(models: tuple[Any, Any]) -> tuple[Any, Any]:
    return models[0].model, models[1].model


def both_refuse(engines: tuple[Any, Any], ask: Callable[[Any], Any], *words: str) -> None:
    same_error(lambda: ask(engines[0]), lambda: ask(engines[1]), *words)


def _features(*shape: int) -> ctranslate2.StorageView:
    return ctranslate2.StorageView.from_array(np.zeros(shape, np.float32))


START = ["<|startoftranscript|>", "<|en|>", "<|transcribe|>"]


@pytest.mark.parametrize(
    ("prompts", "options"),
    [
        ([["a", "b"]], {}),
        ([START, ["<|startofprev|>", *START]], {}),
        ([START, [*START, "<|notimestamps|>"]], {}),
        ([START], {"beam_size": 0}),
        ([START], {"num_hypotheses": 0}),
        ([START], {"num_hypotheses": 6}),
        ([START], {"patience": 0}),
        ([START], {"repetition_penalty": 0}),
        ([START], {"no_repeat_ngram_size": -1}),
        ([START], {"sampling_topk": -1}),
        ([[0.5]], {}),
    ],
    ids=[
        "no-start",
        "unequal-start",
        "unequal-task",
        "beam",
        "no-hypotheses",
        "hypotheses",
        "patience",
        "penalty",
        "n-gram",
        "topk",
        "type",
    ],
)
def test_generate(engines: tuple[Any, Any], prompts: list, options: dict[str, Any]) -> None:
    features = _features(len(prompts), 80, 3000)
    both_refuse(engines, lambda engine: engine.generate(features, prompts, **options))


def test_prompt_longer_than_the_context(engines: tuple[Any, Any]) -> None:
    prompt = ["<|startofprev|>", *["a"] * 460, *START]
    features = _features(1, 80, 3000)
    both_refuse(engines, lambda engine: engine.generate(features, [prompt]))


@pytest.mark.parametrize(
    "shape", [(1, 128, 3000), (80, 3000), (1, 80, 3002)], ids=["mels", "rank", "frames"]
)
def test_features(engines: tuple[Any, Any], shape: tuple[int, ...]) -> None:
    both_refuse(engines, lambda engine: engine.encode(_features(*shape)))


def test_align_frames(engines: tuple[Any, Any]) -> None:
    """One number of frames for each item."""
    ids = [260, 261]
    features = _features(1, 80, 3000)
    both_refuse(engines, lambda engine: engine.align(features, ids, [[1]], [50, 50]))


def test_no_such_file_in_the_engine(tmp_path: Path) -> None:
    path = str(tmp_path / "absent")
    same_error(lambda: ctranslate2.models.Whisper(path), lambda: engine_class()(path), "absent")
