"""The command line, as its user meets it."""

from __future__ import annotations

import inspect
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import faster_whisper
import pytest
from click.testing import CliRunner, Result

import whisper_max_backend
from compat_tests.support.parrot import Parrot
from whisper_max_backend import hookimpl, plugins
from whisper_max_backend.assets import SAMPLE
from whisper_max_backend.backends import Availability
from whisper_max_backend.cli import main
from whisper_max_backend.cli.inputs import Input, expand, output_names

# The package has the command of the same name as an attribute.
transcribe_module = sys.modules["whisper_max_backend.cli.transcribe"]


@pytest.fixture
def parrot() -> Iterator[Parrot]:
    backend = Parrot()

    class Plugin:
        @hookimpl
        def register_backends(self, register: Callable[[Any], None]) -> None:
            register(backend)

    plugins.manager.cache_clear()
    plugins.manager().register(Plugin(), "zoo")
    yield backend
    plugins.manager.cache_clear()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a few files."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.wav", "b.mp3", "bad.wav", "late.wav", "calls/c.ogg", "calls/notes.md"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    return tmp_path


def run(*arguments: str, backend: str = "parrot") -> Result:
    command = list(arguments)
    if command[0] == "transcribe":
        command += ["--backend", backend]
    return CliRunner().invoke(main, command)


# transcribe


def test_segments_are_printed(folder: Path, parrot: Parrot) -> None:
    result = run("transcribe", "a.wav")
    assert result.exit_code == 0
    assert result.stdout == (
        "[00:00.000 --> 00:01.500] a.wav\n[00:02.000 --> 00:03.500] says the parrot.\n"
    )
    assert parrot.loaded == [("tiny.en", "auto", "default", {})]
    assert parrot.calls == [("a.wav", {})], "an option that is not given is the model's business"
    assert {path.name for path in folder.iterdir()} >= {"a.wav"}
    assert not list(folder.glob("a.txt"))


def test_files_folders_and_patterns(folder: Path, parrot: Parrot) -> None:
    result = run("transcribe", "a.wav", "calls", "*.mp3", "**/*.ogg", "a.wav")
    assert result.exit_code == 0
    assert [audio for audio, _ in parrot.calls] == ["a.wav", "calls/c.ogg", "b.mp3"]
    assert "calls/c.ogg:\n[" in result.stdout
    assert len(parrot.loaded) == 1


def test_a_failure_does_not_stop_the_others(folder: Path, parrot: Parrot) -> None:
    result = run("transcribe", "absent.wav", "*.flac", "bad.wav", "late.wav", "a.wav", "-o", "out")
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        "absent.wav: there is no such file",
        "*.flac: no file matches this pattern",
        "bad.wav: this is noise: give speech",
        "late.wav: failed half way",
    ]
    assert {path.name for path in Path("out").iterdir()} == {
        f"a.{suffix}" for suffix in ("txt", "srt", "vtt", "tsv", "json")
    }


def test_nothing_to_transcribe_loads_nothing(folder: Path, parrot: Parrot) -> None:
    Path("empty").mkdir()
    result = run("transcribe", "empty")
    assert result.exit_code == 1
    assert "holds no sound" in result.stderr
    assert parrot.loaded == []


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["-f", "srt"], {"a.srt"}),
        (["-f", "srt", "-f", "json"], {"a.srt", "a.json"}),
        (["-o", "x/y"], {f"x/y/a.{suffix}" for suffix in ("txt", "srt", "vtt", "tsv", "json")}),
        (["-o", "x", "-f", "tsv"], {"x/a.tsv"}),
    ],
)
def test_formats(folder: Path, parrot: Parrot, options: list[str], expected: set[str]) -> None:
    before = {path for path in folder.rglob("*") if path.is_file()}
    assert run("transcribe", "a.wav", "--quiet", *options).stdout == ""
    written = {path for path in folder.rglob("*") if path.is_file()} - before
    assert {str(path.relative_to(folder)) for path in written} == expected


def test_an_unwritable_folder_is_reported(folder: Path, parrot: Parrot) -> None:
    result = run("transcribe", "a.wav", "-o", "b.mp3/x")
    assert result.exit_code == 1
    assert "a.wav: " in result.stderr
    assert "b.mp3" in result.stderr


def test_options_reach_the_model(folder: Path, parrot: Parrot) -> None:
    result = run(
        *("transcribe", "a.wav", "--model", "m", "--device", "cpu", "--compute-type", "float32"),
        *("--threads", "3", "--local-files-only", "--language", "fr", "--task", "translate"),
        *("--word-timestamps", "--vad", "--beam-size", "2", "--temperature", "0,0.4"),
        *("--no-condition-on-previous-text", "--clip-timestamps", "0,5", "--hotwords", "MAX"),
    )
    assert result.exit_code == 0, result.output
    assert parrot.loaded == [("m", "cpu", "float32", {"cpu_threads": 3, "local_files_only": True})]
    assert parrot.calls[0][1] == {
        **{"language": "fr", "task": "translate", "word_timestamps": True, "vad_filter": True},
        **{"beam_size": 2, "temperature": [0.0, 0.4], "condition_on_previous_text": False},
        **{"clip_timestamps": "0,5", "hotwords": "MAX"},
    }


def test_every_option_is_one_of_the_references() -> None:
    parameters = inspect.signature(faster_whisper.WhisperModel.transcribe).parameters
    for add in transcribe_module._MODEL_OPTIONS:
        (option,) = click.command()(add(lambda **_: None)).params
        assert option.name in parameters


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.wav", "--temperature", "warm"], "numbers separated by commas"),
        (["a.wav", "--batch-size", "4"], "needs --batched"),
        (["a.wav", "--task", "sing"], "sing"),
        (["a.wav", "--beam-size", "0"], "beam-size"),
        ([], "FILES"),
    ],
)
def test_usage_errors(parrot: Parrot, arguments: list[str], message: str) -> None:
    result = run("transcribe", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_model_that_cannot_be_loaded(folder: Path, parrot: Parrot) -> None:
    result = run("transcribe", "a.wav", "--model", "unloadable")
    assert result.exit_code == 1
    assert "'unloadable' cannot be loaded: the model is bad: get another" in result.stderr
    result = run("transcribe", "a.wav", backend="no-such")
    assert result.exit_code == 1
    assert "no backend 'no-such'" in result.stderr


def test_batched_needs_a_whisper_model(folder: Path, parrot: Parrot) -> None:
    result = run("transcribe", "a.wav", "--batched")
    assert result.exit_code == 1
    assert "has no batches" in result.stderr


def test_batched(folder: Path, parrot: Parrot, monkeypatch: pytest.MonkeyPatch) -> None:
    class Loaded(faster_whisper.WhisperModel):
        def __init__(self) -> None:
            pass

    class Pipeline:
        def __init__(self, model: Any) -> None:
            assert isinstance(model, Loaded)
            self.transcribe = parrot.transcribe

    monkeypatch.setattr(parrot, "load", lambda *_, **__: Loaded())
    monkeypatch.setattr(whisper_max_backend, "BatchedInferencePipeline", Pipeline)
    result = run("transcribe", "a.wav", "--batched", "--batch-size", "4", "--no-vad")
    assert result.exit_code == 0, result.output
    assert parrot.calls == [("a.wav", {"batch_size": 4, "vad_filter": False})]


def test_where_an_error_comes_from(folder: Path, parrot: Parrot, caplog: Any) -> None:
    result = CliRunner().invoke(main, ["-v", "transcribe", "bad.wav", "--backend", "parrot"])
    assert result.exit_code == 1
    (record,) = (r for r in caplog.records if r.exc_info)
    assert "bad.wav" in record.getMessage()


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["max", "ctranslate2"])
def test_the_sample_is_what_the_reference_hears(tmp_path: Path, backend: str) -> None:
    """The whole way, with a real model."""
    common = ["--device", "cpu", "--compute-type", "float32", "--beam-size", "1"]
    result = run(
        *("transcribe", "sample", "-o", str(tmp_path), "-f", "json", *common),
        backend=backend,
    )
    assert result.exit_code == 0, result.output
    assert re.search(r"^\[00:00\.000 --> .*ask not what your country", result.stdout, re.M)
    written = json.loads((tmp_path / "sample.json").read_text())
    model = faster_whisper.WhisperModel(
        plugins.resolve_model("tiny.en"), device="cpu", compute_type="float32"
    )
    expected, info = model.transcribe(str(SAMPLE), beam_size=1)
    assert [segment["tokens"] for segment in written["segments"]] == [s.tokens for s in expected]
    assert written["language"] == info.language


# Inputs


def test_a_file_called_sample_comes_first(folder: Path) -> None:
    assert list(expand(["sample"])) == [Input("sample", SAMPLE)]
    Path("sample").touch()
    assert list(expand(["sample"])) == [Input("sample", Path("sample"))]


def test_a_name_with_brackets_is_a_name(folder: Path) -> None:
    shutil.copy("a.wav", "talk [1].wav")
    assert [found.name for found in expand(["talk [1].wav"])] == ["talk [1].wav"]


def test_output_names_are_distinct() -> None:
    names = ["a.wav", "b.wav", "b.mp3", "x/c.wav", "y/c.wav", "z/c.wav"]
    inputs = [Input(name, Path(name)) for name in names]
    assert output_names(inputs) == ["a", "b.wav", "b.mp3", "c.wav", "c.wav-2", "c.wav-3"]


# backends, plugins, compile


def test_backends(parrot: Parrot) -> None:
    text = run("backends").stdout
    assert "parrot: repeats\n  cpu: float32\n" in text
    described = json.loads(run("backends", "--json").stdout)
    assert described[-1] == {
        **{"name": "parrot", "summary": "repeats", "priority": -1, "usable": True},
        **{"devices": {"cpu": ["float32"]}, "reason": "", "kernels": {}},
    }
    assert [backend["name"] for backend in described[:2]] == ["max", "ctranslate2"]


def test_backends_that_do_not_work(parrot: Parrot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parrot, "probe", lambda: Availability(reason="it flew away: call it"))
    assert "parrot: repeats\n  not usable: it flew away: call it\n" in run("backends").stdout


def test_plugins(parrot: Parrot) -> None:
    described = json.loads(run("plugins", "--json").stdout)
    assert {"name", "version", "distribution", "hooks"} == set(described[0])
    assert "zoo" in {plugin["name"] for plugin in described}
    assert re.search(
        r"^max \(whisper-max-backend \S+\): register_backends$", run("plugins").stdout, re.M
    )


def test_listing_with_a_bad_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise plugins.PluginError("The plugin 'x' cannot be used")

    monkeypatch.setattr(plugins, "manager", fail)
    for command in ("backends", "plugins"):
        result = run(command)
        assert result.exit_code == 1
        assert "The plugin 'x' cannot be used" in result.stderr


def test_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[Any] = []

    class Model:
        def __init__(self, model: str, **options: Any) -> None:
            if model == "absent":
                raise ValueError("There is no model 'absent'")
            loaded.append((model, options))

        def transcribe(self, audio: str, **options: Any) -> Any:
            assert options["word_timestamps"], "the alignment has a graph too"
            return [], None

    monkeypatch.setattr(whisper_max_backend, "WhisperModel", Model)
    result = run("compile", "base", "--device", "cpu", "--compute-type", "int8")
    assert result.exit_code == 0
    assert "base is ready" in result.stdout
    options = {"device": "cpu", "compute_type": "int8", "local_files_only": False}
    assert loaded == [("base", options)]
    result = run("compile", "absent")
    assert result.exit_code == 1
    assert "cannot be compiled: There is no model 'absent'" in result.stderr


def test_help_and_version() -> None:
    assert whisper_max_backend.__version__ in run("--version").stdout
    assert set(re.findall(r"^  (\w+)  ", run("--help").stdout, re.M)) >= {
        *("transcribe", "backends", "plugins", "compile", "cache"),
    }
