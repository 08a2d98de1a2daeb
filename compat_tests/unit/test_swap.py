"""`install` and `uninstall`: what stands in the place of ctranslate2.models.Whisper, and when."""

from __future__ import annotations

import inspect
import json
import logging
import subprocess
import sys
import textwrap
import threading
import typing
from typing import Any

import ctranslate2
import faster_whisper
import pytest

import whisper_max_backend
from compat_tests.support.models import model_directory
from whisper_max_backend import install, uninstall
from whisper_max_backend.engine.whisper import Whisper
from whisper_max_backend.swap import installation

STOCK = ctranslate2.models.Whisper


@pytest.fixture(autouse=True)
def _stock_again() -> Any:
    yield
    uninstall()
    assert ctranslate2.models.Whisper is STOCK


def engine_of(**arguments: Any) -> Any:
    path = str(model_directory("tiny.en"))
    return faster_whisper.WhisperModel(path, device="cpu", **arguments).model


def test_install_and_uninstall() -> None:
    install()
    assert isinstance(engine_of(), Whisper)
    install()
    uninstall()
    assert type(engine_of()) is STOCK
    uninstall()
    assert ctranslate2.models.Whisper is STOCK


def test_uninstalling_restores_the_identical_objects() -> None:
    """Of all that the two packages have, one attribute changes, and changes back."""
    before = attributes()
    install()
    changed = {name for name, value in attributes().items() if value is not before[name]}
    assert changed == {("ctranslate2.models", "Whisper")}
    uninstall()
    after = attributes()
    assert after.keys() == before.keys()
    assert all(after[name] is before[name] for name in before)


def attributes() -> dict[tuple[str, str], Any]:
    """By the names of a module and of an attribute."""
    modules = [
        (name, module)
        for name, module in sys.modules.items()
        if name.split(".")[0] in ("ctranslate2", "faster_whisper")
    ]
    return {(name, key): value for name, module in modules for key, value in vars(module).items()}


def test_context_manager_ends_with_an_exception() -> None:
    def fail() -> None:
        with install():
            assert ctranslate2.models.Whisper is not STOCK
            raise KeyError("inside")

    with pytest.raises(KeyError):
        fail()
    assert ctranslate2.models.Whisper is STOCK


def test_context_managers_may_nest_and_overlap() -> None:
    first = install()
    outer = ctranslate2.models.Whisper
    with install(compute_type="int8"):
        assert ctranslate2.models.Whisper is not outer
    assert ctranslate2.models.Whisper is outer
    second = install()
    first.__exit__(None, None, None)
    assert ctranslate2.models.Whisper is not STOCK
    second.__exit__(None, None, None)
    assert ctranslate2.models.Whisper is STOCK


def test_threads_may_swap_at_once() -> None:
    errors: list[BaseException] = []

    def many() -> None:
        try:
            for _ in range(200):
                with install():
                    assert ctranslate2.models.Whisper is not STOCK
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=many) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert ctranslate2.models.Whisper is STOCK


def test_threads_may_install_at_once() -> None:
    """In a process that has not imported CTranslate2; one `uninstall` ends them all."""
    code = """
        import threading, whisper_max_backend
        together = threading.Barrier(2)
        def swap():
            together.wait()
            whisper_max_backend.install()
        threads = [threading.Thread(target=swap, daemon=True) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        import ctranslate2
        print(type(ctranslate2.models.Whisper).__name__)
        whisper_max_backend.uninstall()
        print(ctranslate2.models.Whisper.__module__)
    """
    assert output_of(textwrap.dedent(code)).split() == ["StandIn", "ctranslate2._ext"]


def test_defaults_fill_what_the_program_leaves_open() -> None:
    with install(compute_type="int8"):
        assert engine_of().compute_type == "int8_float32"
        assert engine_of(compute_type="float32").compute_type == "float32"


def test_what_the_engine_cannot_load_is_loaded_by_the_reference(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise NotImplementedError("an instruction is missing")

    monkeypatch.setattr(Whisper, "__init__", refuse)
    monkeypatch.setattr(installation, "_told", set())
    with caplog.at_level(logging.WARNING, "whisper_max_backend"), install(compute_type="int8"):
        assert type(engine_of()) is STOCK
        assert engine_of().compute_type == "int8_float32", "defaults are the stand-in's too"
    (record,) = caplog.records
    assert "an instruction is missing" in record.message


@pytest.mark.parametrize(
    ("path", "arguments"),
    [
        ("/no/such/model", {}),
        (None, {"compute_type": "int3"}),
        (None, {"device": "tpu"}),
        (None, {"device_index": 7}),
        (None, {"nonsense": 1}),
    ],
)
def test_mistakes_are_answered_as_by_the_reference(path: str, arguments: dict[str, Any]) -> None:
    path = path or str(model_directory("tiny.en"))
    with pytest.raises(Exception) as stock:  # noqa: PT011 (whatever the reference raises)
        STOCK(path, **arguments)
    with install(), pytest.raises(stock.type) as ours:
        ctranslate2.models.Whisper(path, **arguments)
    assert str(ours.value) == str(stock.value)


def test_what_cannot_be_installed() -> None:
    with pytest.raises(ValueError, match="openai-whisper"):
        install("openai-whisper")
    with pytest.raises(TypeError, match="beam_size"):
        install(beam_size=5)


def test_it_can_be_used_as_the_class_is() -> None:
    with install():
        stand_in = ctranslate2.models.Whisper

        class Mine(stand_in):  # type: ignore[misc, valid-type]
            pass

        assert issubclass(Mine, Whisper)
        assert isinstance(engine_of(), stand_in)
        assert not isinstance("a string", stand_in)
        assert stand_in.generate is Whisper.generate
        assert list(inspect.signature(stand_in).parameters)[:2] == ["model_path", "device"]
        assert issubclass(Mine, stand_in)
        assert issubclass(STOCK, stand_in)
        assert not issubclass(str, stand_in)

        def hinted(a: stand_in | None, b: None | stand_in, c: list[stand_in]) -> None:  # type: ignore[valid-type]
            pass

        hints = typing.get_type_hints(hinted, None, {"stand_in": stand_in})
        assert hints["a"] == typing.Optional[STOCK]  # noqa: UP045


def test_stock_models_are_to_be_had_while_swapped() -> None:
    with install():
        path = str(model_directory("tiny.en"))
        stock = whisper_max_backend.load_model(path, "ctranslate2", "cpu")
        assert type(stock.model) is STOCK  # type: ignore[attr-defined]
        assert type(engine_of()) is Whisper


ORDER = """
import sys
{first}
{second}
from faster_whisper import WhisperModel
model = WhisperModel({path!r}, device="cpu")
print(type(model.model).__module__)
"""


@pytest.mark.parametrize("swap_first", [True, False])
def test_the_order_of_imports_does_not_matter(swap_first: bool) -> None:
    lines = ["import whisper_max_backend; whisper_max_backend.install()", "import faster_whisper"]
    first, second = lines if swap_first else reversed(lines)
    code = ORDER.format(first=first, second=second, path=str(model_directory("tiny.en")))
    assert output_of(code) == "whisper_max_backend.engine.whisper"


def test_importing_the_package_imports_neither_max_nor_the_reference() -> None:
    code = """
        import json, sys, whisper_max_backend
        print(json.dumps([name for name in ("max", "faster_whisper") if name in sys.modules]))
    """
    assert json.loads(output_of(textwrap.dedent(code))) == []


def test_every_public_name_is_there() -> None:
    for name in whisper_max_backend.__all__:
        assert getattr(whisper_max_backend, name) is not None
        assert name in dir(whisper_max_backend)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = whisper_max_backend.nonsense


def output_of(code: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()
