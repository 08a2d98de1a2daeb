"""Compute types: names and rules are the reference's, what runs is told truly."""

from __future__ import annotations

import logging
from pathlib import Path

import ctranslate2
import pytest

from compat_tests.support.miniature import make_model
from whisper_max_backend.engine.api import compute_types
from whisper_max_backend.engine.api.compute_types import Capabilities, Precision, resolve, select
from whisper_max_backend.engine.compile.cpu_target import has_bfloat16

REQUESTS = (
    "default",
    "auto",
    "int8",
    "int8_float32",
    "int8_float16",
    "int8_bfloat16",
    "int16",
    "float16",
    "bfloat16",
    "float32",
    "float",
    "int4",
    "FLOAT32",
    "",
)
SAVED = ("float32", "float16", "bfloat16", "int8_float32", "int8_float16", "int8_bfloat16", "int16")


@pytest.fixture(scope="module", params=SAVED)
def saved_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """A miniature saved in some precision, and the name of the precision."""
    directory = tmp_path_factory.mktemp(request.param)
    return make_model(directory, "one-head", quantization=request.param), request.param


@pytest.mark.parametrize("requested", REQUESTS)
def test_requests_resolve_as_in_the_reference(saved_model: tuple[Path, str], requested: str):
    directory, saved = saved_model

    def resolved() -> str:
        return select(requested, saved, "cpu", "cpu").resolved

    try:
        expected = ctranslate2.models.Whisper(str(directory), compute_type=requested).compute_type
    except ValueError as error:
        if requested == "bfloat16" and has_bfloat16():  # asked for by name, it is to be had
            assert select(requested, saved, "cpu", "cpu") == Precision("bfloat16", "bfloat16")
            return
        with pytest.raises(ValueError, match=str(error)[:30]):
            resolved()
    else:
        assert resolved() == expected


def test_a_dictionary_is_read_by_the_device_as_it_was_written(saved_model: tuple[Path, str]):
    directory, saved = saved_model
    for device, request in (
        ("cpu", {"cpu": "int8"}),
        ("cpu", {"cuda": "int8"}),
        ("cpu", {"cuda": "no such type"}),
        ("CPU", {"cpu": "int8"}),
        ("cpu", {}),
    ):
        reference = ctranslate2.models.Whisper(str(directory), device=device, compute_type=request)
        assert select(request, saved, device, "cpu").resolved == reference.compute_type


@pytest.mark.parametrize("wrong", [None, 8, ["int8"], {"cpu": 8}])
def test_other_types_than_names_are_type_errors(saved_model: tuple[Path, str], wrong: object):
    with pytest.raises(TypeError):
        ctranslate2.models.Whisper(str(saved_model[0]), compute_type=wrong)
    with pytest.raises(TypeError, match="compute_type"):
        select(wrong, "float32", "cpu", "cpu")  # type: ignore[arg-type]


def test_a_type_without_kernels_runs_in_float32_and_says_so_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    compute_types._tell_substitution.cache_clear()
    monkeypatch.setattr(compute_types, "capabilities", lambda device: Capabilities(int16=True))
    with caplog.at_level(logging.INFO, logger="whisper_max_backend"):
        for _ in range(2):
            chosen = select("int16", "float32", "cpu", "cpu")
            assert chosen.resolved == "int16"
            assert chosen.running == "float32"
    assert len(caplog.records) == 1
    assert "float32" in caplog.records[0].message


def test_what_has_kernels_runs_as_it_is_without_a_word(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO, logger="whisper_max_backend"):
        assert select("float32", "int8_float16", "cpu", "cpu").running == "float32"
        assert select("default", "float16", "cpu", "cpu").running == "float32"
        assert select("int8", "float32", "cpu", "cpu").running == "int8_float32"
        assert select("auto", "float16", "cpu", "cpu").running == "int8_float32"
    assert not caplog.records


FULL = Capabilities(int8=True, int16=False, float16=True, bfloat16=True)


@pytest.mark.parametrize(
    ("requested", "saved", "able", "expected"),
    [
        ("default", "float16", FULL, "float16"),
        ("default", "bfloat16", FULL, "bfloat16"),
        ("default", "int16", FULL, "float16"),
        ("auto", "float32", FULL, "int8_float16"),
        ("auto", "float32", Capabilities(float16=True), "float16"),
        ("auto", "float32", Capabilities(), "float32"),
        ("int8", "float16", FULL, "int8_float16"),
        ("int8", "bfloat16", FULL, "int8_bfloat16"),
        ("int8", "float16", Capabilities(int8=True), "int8_float32"),
        ("default", "int8_float16", Capabilities(float16=True), "float16"),
        ("default", "int8_bfloat16", Capabilities(bfloat16=True), "bfloat16"),
        ("default", "int8_bfloat16", Capabilities(), "float32"),
        ("default", "int8_float16", Capabilities(), "float32"),
        ("default", "int8_float16", Capabilities(int16=True), "int16"),
    ],
)
def test_rules_on_a_gpu(requested: str, saved: str, able: Capabilities, expected: str):
    """As src/types.cc gives them: no GPU is at hand to ask."""
    assert resolve(requested, saved, able, "cuda") == expected


@pytest.mark.parametrize("saved", [name for name in SAVED if name != "int16"])
def test_a_gpu_has_the_type_of_every_other_file(saved: str):
    assert select("default", saved, "cuda", "cuda").resolved == saved


@pytest.mark.parametrize(
    ("requested", "able"),
    [
        ("int8", Capabilities(float16=True)),
        ("float16", Capabilities(int8=True)),
        ("int16", FULL),
        ("int8_bfloat16", Capabilities(int8=True)),
    ],
)
def test_what_a_gpu_lacks_is_refused(requested: str, able: Capabilities):
    with pytest.raises(ValueError, match=f"Requested {requested} compute type"):
        resolve(requested, "float16", able, "cuda")
