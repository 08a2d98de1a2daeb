"""What is kept of a corpus: shards, notes of deaths, files beside the shards, and the report."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from whisper_max_backend.corpus import report
from whisper_max_backend.corpus.attempts import MOST_DEATHS, Attempts
from whisper_max_backend.corpus.corpus import opened_corpus
from whisper_max_backend.corpus.plan import Shard, Size
from whisper_max_backend.corpus.progress import Watch
from whisper_max_backend.corpus.shards import (
    FORMATS,
    SCHEMA,
    CannotWrite,
    Shards,
    kept_file,
    remove_leftovers,
)
from whisper_max_backend.corpus.transcribe import Done, Job
from whisper_max_backend.corpus.writers import file_name, writers
from whisper_max_backend.hookspecs import Row

WORD = {"start": 0.5, "end": 0.75, "word": " Hi", "probability": 0.5}
SEGMENT = {
    **{"id": 1, "seek": 0, "start": 0.5, "end": 2.0, "text": " Hi there.", "tokens": [1, 50000]},
    **{"avg_logprob": -0.25, "compression_ratio": 1.5, "no_speech_prob": 0.125, "words": [WORD]},
    "temperature": 0.0,
}
ROW = {
    **{"key": "a/ö.wav", "source": "/a/ö.wav", "offset": None, "duration": 3600.0},
    **{"language": "en", "language_probability": 0.5, "text": " Hi there.", "seconds": 7.0},
    **{"segments": [SEGMENT], "model": "m", "backend": "max", "compute_type": "int8"},
    **{"version": "1", "error": None},
}
FAILED = {
    **dict.fromkeys(SCHEMA.names),
    **{"key": "b", "source": "/b", "error": "/b: ValueError: it is damaged"},
}


# Shards


@pytest.mark.parametrize("format", FORMATS)
def test_shards_are_read_as_they_were_written(tmp_path: Path, format: str) -> None:
    shards = Shards(tmp_path, format)
    assert (shards.names(), shards.has("x")) == (frozenset(), False)
    shards.write("x", [FAILED])
    shards.write("x", [ROW, FAILED])
    assert (shards.names(), shards.has("x")) == (frozenset(["x"]), True)
    assert shards.read("x") == [ROW, FAILED]
    assert shards.read("x", ["key", "error"])[0] == {"key": "a/ö.wav", "error": None}
    assert [path.name for path in tmp_path.iterdir()] == [f"x.{format}"]


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old")

    def write(error: Exception) -> None:
        with kept_file(path) as file:
            file.write(b"new")
            raise error

    with pytest.raises(CannotWrite, match="No space left"):
        write(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    with pytest.raises(KeyError):
        write(KeyError())
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [("x", b"old")]


def test_what_is_left_half_written_is_no_shard(tmp_path: Path) -> None:
    (tmp_path / ".x.parquet.1234").write_bytes(b"PAR1")
    assert Shards(tmp_path, "parquet").names() == frozenset()
    remove_leftovers(tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_dead_processes_leave_is_gone_at_the_end_of_a_run(tmp_path: Path) -> None:
    with opened_corpus(Job(tmp_path, "m")):
        (tmp_path / "shards" / ".x.parquet.1234.draft").write_bytes(b"PAR1")
    assert not list((tmp_path / "shards").iterdir())


# Deaths


def test_a_recording_at_which_processes_die(tmp_path: Path) -> None:
    path = tmp_path / "x"
    for attempt in range(MOST_DEATHS):
        attempts = Attempts(path, "run")
        assert attempts.deadly == set()
        attempts.begin("good")
        attempts.end("good")
        attempts.begin("bad\n- bad")
        if attempt == 0:
            attempts.begin("beside it")
    assert Attempts(path, "run").deadly == {"bad\\n- bad"}
    assert Attempts(path, "another run").deadly == set()
    attempts.forget()
    assert Attempts(path, "run").deadly == set()


def test_notes_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(CannotWrite):
        Attempts(tmp_path / "absent" / "x", "run")


# Files beside the shards


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("a/ö.wav", "a/ö.wav"),
        ("/etc/x", "%2Fetc%2Fx"),
        ("../x", "..%2Fx"),
        ("a//b", "a%2F%2Fb"),
        ("./a", ".%2Fa"),
        ("s3://b/c", "s3%3A%2F%2Fb%2Fc"),
    ],
)
def test_files_stay_in_their_folder(key: str, name: str) -> None:
    assert file_name(key) == name


def test_long_keys() -> None:
    for key in ("ö" * 200, "a/" + "b" * 300 + "/c", "/" * 200):
        assert len(file_name(key)) == 64
    assert file_name("ö" * 200) != file_name("ö" * 201)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("txt", "Hi there.\n"),
        ("srt", "1\n00:00:00,500 --> 00:00:02,000\nHi there.\n\n"),
        ("vtt", "WEBVTT\n\n00:00.500 --> 00:02.000\nHi there.\n\n"),
        ("tsv", "start\tend\ttext\n500\t2000\tHi there.\n"),
    ],
)
def test_texts(tmp_path: Path, name: str, text: str) -> None:
    writers()[name].write([ROW, FAILED], "00000-000000", tmp_path)
    (path,) = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert (path.relative_to(tmp_path), path.read_text()) == (Path(f"a/ö.wav.{name}"), text)


def test_supervisions_of_lhotse(tmp_path: Path) -> None:
    import json

    writers()["lhotse"].write([ROW, FAILED], "00000-000000", tmp_path)
    assert json.loads((tmp_path / "supervisions-00000-000000.jsonl").read_text()) == {
        **{"id": "a/ö.wav-1", "recording_id": "a/ö.wav", "start": 0.5, "duration": 1.5},
        **{"channel": 0, "language": "en", "text": "Hi there."},
        "alignment": {"word": [["Hi", 0.5, 0.25, 0.5]]},
    }


# The report


def test_the_report(tmp_path: Path) -> None:
    shards = Shards(tmp_path, "parquet")
    shards.write("0", [ROW, {**ROW, "key": "<c>", "seconds": 14.0}])
    shards.write("1", [FAILED, {**FAILED, "error": "/b: the process died 3 times"}])
    summary = report.summary_of(shards)
    assert (summary.rows, summary.hours, summary.work) == (4, {"en": 2.0}, 21.0)
    assert summary.failures == {"ValueError": 1, "the process died 3 times": 1}
    run = {"rows": 4, "speed": 12.34, "elapsed_s": 100.0, "actors": 2, "lost_actors": 1}
    page = report.page(summary, run, {"model": "m"})
    for shown in ("12.3 times real time", "<td>&lt;c&gt;<td>3600.0 s", "<td>/b: ValueError"):
        assert shown in page
    assert "<c>" not in page
    assert page.index("&lt;c&gt;") < page.index("<td>a/ö.wav"), "the slowest comes first"


def test_the_slowest_and_the_first_failures_are_kept() -> None:
    summary = report.Summary()
    for number in range(1000):
        summary.add({**ROW, "key": str(number), "seconds": float(number)})
        summary.add({**FAILED, "key": str(number)})
    assert sorted(int(key) for _, key, _ in summary.slowest) == list(range(980, 1000))
    assert (summary.failures.total(), len(summary.errors)) == (1000, 200)


# Progress


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now

    def strftime(self, form: str) -> str:
        return "12:34"


def test_a_line_a_minute(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    clock = Clock()
    monkeypatch.setattr("whisper_max_backend.corpus.progress.time", clock)
    watch = Watch(Size(10, 7200.0))
    shard = Shard("x", [Row("a", "b", duration=10.0)])
    for _ in range(3):
        clock.now += 30
        watch.tick()
    watch.ready(1)
    clock.now += 60
    watch.done(shard, Done(4, 1, 1800.0, 5))
    watch.tick()
    watch.lost("it is gone")
    watch.close()
    assert capsys.readouterr().err.splitlines() == [
        "12:34 10 recordings to do, the model is loading",
        "12:34 4 of 10 recordings, 0.50 h of 2.00 h of audio, 30.0 times real time, 1 failed, "
        "0:03:00 left",
        "12:34 A process is lost, and replaced: it is gone",
    ]
    assert watch.figures() == {
        **{"rows": 4, "errors": 1, "audio_s": 1800.0, "elapsed_s": 60.0, "speed": 30.0},
        **{"actors": 1, "lost_actors": 1, "actor_memory": 5},
    }


def test_lengths_that_are_not_known(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    clock = Clock()
    monkeypatch.setattr("whisper_max_backend.corpus.progress.time", clock)
    watch = Watch(Size(10, None))
    watch.ready(1)
    clock.now += 60
    watch.tick()
    watch.done(Shard("x", []), Done(5, 0, 600.0, 5))
    clock.now += 60
    watch.tick()
    assert capsys.readouterr().err.splitlines() == [
        "12:34 0 of 10 recordings, 0.00 h of audio, 0.0 times real time, 0 failed, "
        "unknown time left",
        "12:34 5 of 10 recordings, 0.17 h of audio, 5.0 times real time, 0 failed, 0:02:00 left",
    ]
