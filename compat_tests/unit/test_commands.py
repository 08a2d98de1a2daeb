"""What the commands pass on of their options; what they start is replaced."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

from compat_tests.support.command_line import invoke
from compat_tests.support.recordings import write_wav
from whisper_max_backend.cli import main
from whisper_max_backend.comparison.choices import Choice
from whisper_max_backend.comparison.measure import MeasuredSide, Transcription
from whisper_max_backend.comparison.meters import Sample
from whisper_max_backend.corpus.corpus import Resources
from whisper_max_backend.corpus.transcribe import Job

STOCK = Choice("ctranslate2", "cpu", "int8")
OURS = Choice("max", "cpu", "float32")


def commands() -> Iterator[tuple[str, click.Command]]:
    yield from main.commands.items()


# All commands


def test_help_tells_every_default() -> None:
    for name, command in commands():
        text = " ".join(invoke(name, "--help").stdout.split())
        for option in command.params:
            given = option.default
            if isinstance(option, click.Option) and isinstance(given, str | int | float | list):
                values = ", ".join(map(str, given)) if isinstance(given, list) else str(given)
                told = isinstance(given, bool) or f"default: {values}" in text
                assert told, f"{name} {option.opts[0]}"


def test_flags_take_no_value() -> None:
    flags = {
        (name, option.name)
        for name, command in commands()
        for option in command.params
        if isinstance(option, click.Option) and option.is_flag
    }
    assert flags == {
        *(("transcribe", flag) for flag in ("quiet", "batched", "local_files_only", "guards")),
        *(("live", flag) for flag in ("fast", "local_files_only")),
        ("wyoming", "local_files_only"),
        *(("corpus", flag) for flag in ("batched", "dashboard", "guards", "local_files_only")),
        *(("corpus", flag) for flag in ("retry_errors", "vad_filter", "word_timestamps")),
        *(("corpus", flag) for flag in ("multilingual", "condition_on_previous_text")),
        ("corpus", "without_timestamps"),
        *(("transcribe", flag) for flag in ("word_timestamps", "vad_filter", "multilingual")),
        *(("transcribe", flag) for flag in ("condition_on_previous_text", "without_timestamps")),
        *(("run", "as_module"), ("backends", "as_json"), ("plugins", "as_json")),
        *(("compile", "local_files_only"), ("cache", "clear")),
        *(("compare", "vad_filter"), ("compare", "local_files_only")),
        *(("demo", "share"), ("demo", "local_files_only")),
    }


@pytest.mark.parametrize(
    ("command", "option", "lowest", "highest"),
    [
        ("transcribe", "--threads", 0, None),
        ("transcribe", "--batch-size", 1, None),
        ("transcribe", "--beam-size", 1, None),
        ("transcribe", "--best-of", 1, None),
        ("transcribe", "--no-repeat-ngram-size", 0, None),
        ("transcribe", "--max-new-tokens", 1, None),
        ("transcribe", "--chunk-length", 1, 30),
        ("corpus", "--max-errors", 0, None),
        ("corpus", "--shard-rows", 1, None),
        ("corpus", "--actors", 1, None),
        ("corpus", "--gpus", 0, None),
        ("compare", "--rounds", 1, None),
        ("compare", "--beam-size", 1, None),
        ("compare", "--temperature", 0, None),
        ("compare", "--threads", 0, None),
        ("run", "--threads", 1, None),
        ("demo", "--port", 1, 65535),
        ("demo", "--threads", 0, None),
    ],
)
def test_ranges(command: str, option: str, lowest: int, highest: int | None) -> None:
    (param,) = (param for param in main.commands[command].params if option in param.opts)
    with click.Context(main.commands[command]) as context:
        for value in (lowest, lowest + 1, *([highest] if highest else [])):
            assert param.type.convert(str(value), param, context) == value
        for value in (lowest - 1, *([highest + 1] if highest else [])):
            with pytest.raises(click.BadParameter):
                param.type.convert(str(value), param, context)


@pytest.mark.parametrize("option", ["--max-minutes", "--max-upload-mb"])
def test_limits_of_a_visitor_are_more_than_nothing(option: str) -> None:
    assert invoke("demo", option, "0").exit_code == 2
    assert invoke("demo", option, "0.001", "--port", "0").exit_code == 2


@pytest.mark.parametrize(("verbose", "level"), [((), logging.INFO), (("-v",), logging.DEBUG)])
def test_verbose_logs_more(verbose: tuple[str, ...], level: int) -> None:
    loggers = [logging.getLogger(name) for name in ("whisper_max_backend", "faster_whisper")]
    before = [logger.level for logger in loggers]
    try:
        assert invoke(*verbose, "plugins").exit_code == 0
        assert loggers[0].level == level
        assert loggers[1].level == (logging.DEBUG if verbose else before[1])
    finally:
        for logger, old in zip(loggers, before, strict=True):
            logger.setLevel(old)


def test_the_command_line_starts_without_what_its_commands_need() -> None:
    """So that --help is quick, and runs where an extra is not installed."""
    slow = (
        *("max.driver", "faster_whisper", "gradio", "jiwer", "pyarrow", "ray"),
        *("whisper_max_backend.comparison", "whisper_max_backend.corpus"),
    )
    program = (
        "import sys, whisper_max_backend.cli, whisper_max_backend.engine.api.devices\n"
        f"print(*(name for name in {slow} if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout.strip(), done.returncode) == ("", 0), done.stderr


# compare


class Measuring:
    """Stands for `measure`: what it was asked, and sides that said something."""

    def __init__(self) -> None:
        self.asked: dict[str, Any] = {}
        self.problem = ""

    def __call__(
        self, model: str, choices: Any, recordings: Any, options: Any, *, tell: Any, **more: Any
    ) -> list[MeasuredSide]:
        tell("measuring")
        self.asked = {"model": model, "choices": choices, "options": options, **more}
        self.asked["recordings"] = [(one.name, one.transcript) for one in recordings]
        return [
            MeasuredSide(choice, 0.5, [self._transcription() for _ in recordings])
            for choice in choices
        ]

    def _transcription(self) -> Transcription:
        if self.problem:
            return Transcription(problem=self.problem)
        looks = [Sample(1.0, 1 << 20, 0.5)]
        return Transcription("gesägt", seconds=[1.0], first_text=[0.5], samples=[looks])


@pytest.fixture
def measuring(monkeypatch: pytest.MonkeyPatch) -> Measuring:
    stub = Measuring()
    monkeypatch.setattr("whisper_max_backend.comparison.measure.measure", stub)
    return stub


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with two recordings and a transcript of each."""
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        write_wav(tmp_path / f"{name}.wav", np.zeros(1600, np.float32))
        (tmp_path / f"{name}.txt").write_text(f"words of {name}")
    return tmp_path


BOTH = ("-b", "max:float32", "-b", "ctranslate2:int8")


def test_comparing_passes_on_what_was_chosen(folder: Path, measuring: Measuring) -> None:
    done = invoke(
        *("compare", "a.wav", "b.wav", *BOTH, "--model", "m", "--rounds", "2", "--beam-size", "3"),
        *("--against", "ctranslate2:int8", "--language", "en", "--vad", "--temperature", "0.5"),
        *("--threads", "4", "--local-files-only", "--transcript", "a.txt", "--transcript", "b.txt"),
    )
    assert done.exit_code == 0, done.output
    assert measuring.asked == {
        **{"model": "m", "choices": [OURS, STOCK], "rounds": 2, "against": STOCK},
        "options": {"language": "en", "beam_size": 3, "vad_filter": True, "temperature": 0.5},
        "loading": {"cpu_threads": 4, "local_files_only": True},
        "recordings": [("a.wav", "words of a"), ("b.wav", "words of b")],
    }


def test_comparing_by_default(folder: Path, measuring: Measuring) -> None:
    assert invoke("compare", "a.wav").exit_code == 0
    asked = measuring.asked
    assert [choice.backend for choice in asked["choices"]] == ["ctranslate2", "max"]
    assert asked["against"] == asked["choices"][0]
    assert (asked["model"], asked["rounds"], asked["loading"]) == ("tiny.en", 3, {})
    assert asked["options"] == {"beam_size": 5}
    assert asked["recordings"] == [("a.wav", None)]


def test_what_is_compared_with_is_one_of_the_sides(folder: Path, measuring: Measuring) -> None:
    invoke("compare", "a.wav", "-b", "max:float32", "--against", "ctranslate2:int8")
    assert measuring.asked["choices"] == [STOCK, OURS]
    invoke("compare", "a.wav", *BOTH, "-b", "max:float32")
    assert measuring.asked["choices"] == [OURS, STOCK], "each once"
    assert measuring.asked["against"] == OURS


def test_reports_are_written(folder: Path, measuring: Measuring) -> None:
    assert invoke("compare", "a.wav", *BOTH, "--html", "x.html", "--json", "x.json").exit_code == 0
    assert "<html" in Path("x.html").read_text()
    assert Path("x.json").read_text().endswith("}\n")
    assert "gesägt" in Path("x.json").read_text(encoding="utf-8"), "for people to read"
    data = json.loads(Path("x.json").read_text())
    printed = invoke("compare", "a.wav", *BOTH, "--json", "-").stdout
    for one in (data, json.loads(printed)):
        assert (one["model"], one["compared_with"]) == ("tiny.en", OURS.label)
        assert [side["text"] for side in one["recordings"][0]["sides"]] == ["gesägt"] * 2
    done = invoke("compare", "a.wav", *BOTH, "--json", "absent/x.json")
    assert done.exit_code == 1
    assert "the report cannot be written" in done.stderr


def test_a_table_is_printed_without_json(folder: Path, measuring: Measuring) -> None:
    table = invoke("compare", "a.wav", *BOTH).stdout
    assert OURS.label in table
    assert max(map(len, table.splitlines())) <= 120
    assert not invoke("compare", "a.wav", *BOTH, "--json", "x.json").stdout.startswith("{")


def test_the_status_tells_whether_all_was_compared(folder: Path, measuring: Measuring) -> None:
    Path("bad.wav").write_bytes(b"noise")
    write_wav(folder / "empty.wav", np.zeros(0, np.float32))
    for absent in ("bad.wav", "none.wav", "empty.wav"):
        done = invoke("compare", absent, "a.wav", *BOTH)
        assert done.exit_code == 1
        assert done.stderr.startswith(f"{absent}: ")
        assert measuring.asked["recordings"] == [("a.wav", None)]
        assert "no recording to compare" in invoke("compare", absent, *BOTH).stderr
    measuring.problem = "it failed"
    done = invoke("compare", "a.wav", *BOTH)
    assert (done.exit_code, "it failed" in done.stdout) == (1, True)


def test_many_recordings(folder: Path, measuring: Measuring) -> None:
    for number in range(300):
        write_wav(folder / f"{number}.mp3", np.zeros(16, np.float32))
    assert invoke("compare", "*.mp3", *BOTH).exit_code == 0
    assert len(measuring.asked["recordings"]) == 300


def test_a_transcript_for_each_recording(folder: Path, measuring: Measuring) -> None:
    done = invoke("compare", "a.wav", "b.wav", *BOTH, "--transcript", "a.txt")
    assert done.exit_code == 1
    assert "2 recordings and 1 transcripts" in done.stderr
    assert invoke("compare", *BOTH).exit_code == 2


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    done = invoke("compare", "sample")
    assert done.exit_code == 1
    assert "This needs jinja2, jiwer, matplotlib, psutil: pip install" in done.stderr
    assert "needs Gradio: pip install" in invoke("demo").stderr
    assert "needs wyoming: pip install" in invoke("wyoming").stderr
    assert "This needs pyarrow, ray: pip install" in invoke("corpus", "x", "--out", "y").stderr


# corpus


def test_a_corpus_is_transcribed_as_was_chosen(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[Any] = []
    monkeypatch.setattr(
        "whisper_max_backend.corpus.corpus.transcribe_corpus",
        lambda *arguments, **more: called.append((*arguments, more)),
    )
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert invoke("corpus", "a.wav", "-o", "out").exit_code == 0
    inputs, job, resources, more = called.pop()
    assert inputs == ("a.wav",)
    assert job == Job(folder / "out", "tiny.en")
    assert resources == Resources("local", False, None, None, None)
    assert more == {"retry_errors": False, "max_errors": None, "shard_rows": None}
    done = invoke(
        *("corpus", "a.wav", "b.wav", "--out", "/out", "--model", "a.wav", "--backend", "max"),
        *("--device", "cuda", "--compute-type", "int8", "--threads", "3", "--local-files-only"),
        *("--output-format", "jsonl", "--write", "srt", "-w", "lhotse", "--retry-errors"),
        *("--max-errors", "5", "--shard-rows", "6", "--ray", "auto", "--actors", "7"),
        *("--gpus", "0.5", "--dashboard", "--batched", "--batch-size", "8", "--guards"),
        *("--beam-size", "9", "--temperature", "0,0.5"),
    )
    assert done.exit_code == 0, done.output
    inputs, job, resources, more = called.pop()
    assert job == Job(
        *(Path("/out"), str(folder / "a.wav"), "max", "cuda", "int8", {"local_files_only": True}),
        {"beam_size": 9, "temperature": [0, 0.5], "batch_size": 8, "guards": True},
        *(True, "jsonl", ("srt", "lhotse")),
    )
    assert resources == Resources("auto", True, 7, 3, 0.5)
    assert more == {"retry_errors": True, "max_errors": 5, "shard_rows": 6}
    monkeypatch.setenv("RAY_ADDRESS", "1.2.3.4:5")
    assert invoke("corpus", "a.wav", "-o", "out").exit_code == 0
    assert called.pop()[2].ray == "1.2.3.4:5"
    assert invoke("corpus", "a.wav", "-o", "out", "--batch-size", "2").exit_code == 2


def test_a_corpus_that_cannot_be_read(folder: Path) -> None:
    for given, problem in (
        (("none.wav",), "none.wav: there is no such file"),
        (("a.wav", "a.wav"), "1 keys are there more than once (a.wav)"),
        (("a.wav", "--write", "x"), "There is no writer x (there are: "),
    ):
        done = invoke("corpus", *given, "--out", "out")
        assert done.exit_code == 1, done.output
        assert problem in done.stderr
    assert not list(Path("out", "shards").glob("*"))


# demo


def test_the_page_gets_what_was_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[Any] = []
    monkeypatch.setattr(
        "whisper_max_backend.demo.server.serve", lambda *arguments: served.append(arguments)
    )
    assert invoke("demo").exit_code == 0
    models, choices, limits, *rest = served.pop()
    assert (models, limits.minutes, limits.megabytes) == (("tiny.en",), 10, 50)
    assert {choice.backend for choice in choices.values()} >= {"max", "ctranslate2"}
    assert rest == [{}, "127.0.0.1", None, False, ()]
    done = invoke(
        *("demo", "--model", "a", "--model", "b", "--backend", "max", "--compute-type", "int8"),
        *("--host", "0.0.0.0", "--port", "80", "--max-minutes", "2", "--max-upload-mb", "3"),
        *("--allow-host", "x", "--allow-host", "y", "--share", "--threads", "0"),
        "--local-files-only",
    )
    assert done.exit_code == 0, done.output
    models, choices, limits, *rest = served.pop()
    assert (models, limits.minutes, limits.megabytes) == (("a", "b"), 2, 3)
    assert {(one.backend, one.compute_type) for one in choices.values()} == {("max", "int8")}
    loading = {"cpu_threads": 0, "local_files_only": True}
    assert rest == [loading, "0.0.0.0", 80, True, ("x", "y")]


@pytest.mark.parametrize("error", [ValueError, OSError])
def test_a_page_that_cannot_be_served(monkeypatch: pytest.MonkeyPatch, error: type) -> None:
    def fail(*arguments: Any) -> None:
        raise error("the address is in use")

    monkeypatch.setattr("whisper_max_backend.demo.server.serve", fail)
    done = invoke("demo")
    assert (done.exit_code, done.stderr) == (1, "Error: the address is in use\n")
