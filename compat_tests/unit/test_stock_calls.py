"""Swapped in over a build of CTranslate2 that has more than the engine."""

from __future__ import annotations

import inspect
import io
import logging
from pathlib import Path
from typing import Any

import ctranslate2
import faster_whisper
import numpy as np
import pytest

from compat_tests.support.miniature import make_model
from compat_tests.support.models import model_directory
from whisper_max_backend import install
from whisper_max_backend.engine.whisper import Whisper
from whisper_max_backend.swap import stock_calls

STOCK = ctranslate2.models.Whisper
PROMPTS = [["<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>"]]
GREEDY: dict[str, Any] = {"beam_size": 1, "max_length": 20}


class Foreign(STOCK):  # type: ignore[misc, valid-type]
    """Its models tell how often they were loaded."""

    loaded = 0
    edition = "of somebody's own"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        type(self).loaded += 1

    def generate(self, *args: Any, boost: float | None = None, **kwargs: Any) -> Any:
        results = super().generate(*args, **kwargs)
        return results if boost is None else ("boosted", results)

    def energy(self, features: Any) -> float:
        """Of the features."""
        return float(np.abs(np.array(features)).sum())

    @property
    def vocabulary_size(self) -> int:
        return 51865

    @staticmethod
    def extensions() -> list[str]:
        return ["boost"]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_model(tmp_path_factory.mktemp("model"), "one-head"))


@pytest.fixture
def features() -> Any:
    samples = np.random.default_rng(0).standard_normal((1, 80, 200), np.float32)
    return ctranslate2.StorageView.from_array(samples)


@pytest.fixture(autouse=True)
def foreign(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(ctranslate2.models, "Whisper", Foreign)
    monkeypatch.setattr(Foreign, "loaded", 0)
    stock_calls._tell.cache_clear()
    with install():
        yield
    assert ctranslate2.models.Whisper is Foreign


def warnings(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """What was logged at this level or above; earlier tests may have left a lower one."""
    return [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_known_calls_run_on_the_engine(path: str, features: Any) -> None:
    model = ctranslate2.models.Whisper(path)
    assert isinstance(model, Whisper)
    assert isinstance(model, ctranslate2.models.Whisper)
    (ours,) = model.generate(features, PROMPTS, **GREEDY)
    (expected,) = STOCK(path).generate(features, PROMPTS, **GREEDY)
    assert ours.sequences_ids == expected.sequences_ids
    assert Foreign.loaded == 0
    assert type(faster_whisper.WhisperModel(str(model_directory("tiny.en"))).model).__mro__[2] is (
        Whisper
    )


def test_unknown_arguments_go_to_the_build(
    path: str, features: Any, caplog: pytest.LogCaptureFixture
) -> None:
    model = ctranslate2.models.Whisper(path)
    encoded = model.encode(features)
    (expected,) = STOCK(path).generate(features, PROMPTS, **GREEDY)
    for given in (features, encoded):  # CTranslate2's array and the engine's
        said, (result,) = model.generate(given, PROMPTS, boost=2.0, **GREEDY)
        assert said == "boosted"
        assert result.sequences_ids == expected.sequences_ids
    assert Foreign.loaded == 1
    (record,) = warnings(caplog)
    assert "generate" in record.message
    assert "'boost'" in record.message


def test_unknown_methods_and_properties_go_to_the_build(
    path: str, features: Any, caplog: pytest.LogCaptureFixture
) -> None:
    stand_in = ctranslate2.models.Whisper
    assert (stand_in.edition, stand_in.extensions()) == ("of somebody's own", ["boost"])
    assert stand_in.energy.__doc__ == "Of the features."
    assert hasattr(stand_in, "vocabulary_size")
    assert not hasattr(stand_in, "nonsense")
    model = stand_in(path)
    assert (model.edition, model.extensions()) == ("of somebody's own", ["boost"])
    assert not hasattr(model, "nonsense")
    assert Foreign.loaded == 0
    for _ in range(2):
        assert model.energy(features) == pytest.approx(np.abs(np.array(features)).sum())
        assert model.vocabulary_size == 51865
    assert Foreign.loaded == 1
    assert len(warnings(caplog)) == 2, "one for each name"


def test_unloading_unloads_both(path: str) -> None:
    model = ctranslate2.models.Whisper(path)
    assert model.vocabulary_size == 51865
    model.unload_model()
    model.load_model()
    assert model.vocabulary_size == 51865
    assert Foreign.loaded == 2


def test_mistakes_are_the_builds(path: str, features: Any) -> None:
    model = ctranslate2.models.Whisper(path)
    with pytest.raises(TypeError):
        model.generate(features, PROMPTS, nonsense=1)


def test_files_in_memory_serve_both(path: str) -> None:
    files: dict[str, Any] = {
        file.name: io.BytesIO(file.read_bytes()) for file in Path(path).iterdir()
    }
    files["vocabulary.json"] = io.StringIO(Path(path, "vocabulary.json").read_text())
    model = ctranslate2.models.Whisper("model", files=files)
    assert model.vocabulary_size == 51865
    assert isinstance(model, Whisper)


def test_subclasses_have_it_too(path: str) -> None:
    class Mine(ctranslate2.models.Whisper):
        pass

    assert Mine(path).vocabulary_size == 51865
    parameters = list(inspect.signature(ctranslate2.models.Whisper).parameters)
    assert parameters == list(inspect.signature(Whisper).parameters)


def test_ctranslate2_itself_has_nothing_more() -> None:
    assert stock_calls.with_stock_calls(Whisper, STOCK) is Whisper


def test_a_class_whose_signatures_are_unknown() -> None:
    """The engine does not say that it knows better."""
    assert stock_calls._argument_names(STOCK.generate) == set(
        inspect.signature(Whisper.generate).parameters
    )
    assert stock_calls._argument_names(dict.pop) is None
