"""What an actor of `whisper-max corpus` does, in this process."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest

from compat_tests.support.models import model_directory, our_model, reference_model
from compat_tests.support.recordings import audio_file, load, write_wav
from whisper_max_backend.corpus.plan import Shard, rows_of
from whisper_max_backend.corpus.readers import readers
from whisper_max_backend.corpus.transcribe import BadModel, Done, Job, Transcriber
from whisper_max_backend.hookspecs import Row

pytestmark = pytest.mark.slow
JFK = Row("jfk", str(audio_file("jfk.flac")))
ABSENT = Row("absent", "/absent.wav")


def job(folder: Path, **changes: Any) -> Job:
    for name in ("shards", "attempts"):
        (folder / name).mkdir()
    options = {"temperature": 0.0, "language": "en"}
    told = Job(folder, str(model_directory("tiny.en")), "max", "cpu", "float32", options=options)
    return dataclasses.replace(told, **changes)


def loaded(folder: Path, **changes: Any) -> Transcriber:
    transcriber = Transcriber(job(folder, **changes), "run")
    transcriber.load()
    return transcriber


def transcribed(transcriber: Transcriber, *rows: Row, again: bool = False) -> list[dict[str, Any]]:
    transcriber.transcribe(Shard("0-0", rows), again, False)
    assert not list((transcriber.job.folder / "attempts").iterdir())
    return transcriber.job.shards.read("0-0")


def heard(audio: Any, **options: Any) -> list[list[int]]:
    options = {"temperature": 0.0, "language": "en", **options}
    return [segment.tokens for segment in our_model("tiny.en").transcribe(audio, **options)[0]]


def tokens(row: dict[str, Any]) -> list[list[int]]:
    assert row["error"] is None
    return [segment["tokens"] for segment in row["segments"]]


def test_parts_are_transcribed_as_their_samples(tmp_path: Path) -> None:
    entries = [
        {"audio_filepath": JFK.source, "offset": offset, "duration": 5.0} for offset in (0.0, 4.0)
    ]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, entries)))
    parts = list(rows_of([str(tmp_path / "m.jsonl")], readers()))
    whole, *cut = transcribed(loaded(tmp_path), JFK, *parts)
    samples = load("jfk")
    assert tokens(whole) == heard(samples)
    assert tokens(cut[0]) == heard(samples[:80_000])
    assert tokens(cut[1]) == heard(samples[64_000:144_000])
    assert [row["offset"] for row in cut] == [0.0, 4.0]
    assert cut[1]["duration"] == 5.0


def test_a_shard_is_done_once(tmp_path: Path) -> None:
    transcriber = loaded(tmp_path)
    path = tmp_path / "late.wav"
    shard = Shard("0-0", [JFK, Row("late", str(path))])
    first = transcriber.transcribe(shard, False, False)
    assert (first.rows, first.errors, first.seconds) == (2, 1, 11.0)
    assert first.memory > 100 << 20
    kept, failed = transcriber.job.shards.read("0-0")
    assert failed["error"].startswith(f"{path}: FileNotFoundError: ")
    assert failed["segments"] is None
    write_wav(path, load("command"))
    done = transcriber.transcribe(shard, False, False)
    assert (done.rows, done.errors) == (0, 0)
    assert transcriber.job.shards.read("0-0") == [kept, failed]
    done = transcriber.transcribe(shard, True, False)
    assert (done.rows, done.errors) == (1, 0)
    assert transcriber.job.shards.read("0-0")[0] == kept, "with the seconds of the first time"
    assert tokens(transcriber.job.shards.read("0-0")[1]) == heard(str(path))


def test_what_is_sampled_depends_on_the_key(tmp_path: Path) -> None:
    write_wav(tmp_path / "noisy.wav", load("noisy"))
    options = {"language": "en", "temperature": 1.0, "beam_size": 1, "best_of": 1}
    transcriber = loaded(tmp_path, options=options)
    rows = [Row(key, str(tmp_path / "noisy.wav")) for key in "abc"]
    texts = {row["key"]: row["text"] for row in transcribed(transcriber, *rows)}
    assert len(set(texts.values())) > 1
    for row in rows:
        transcriber.transcribe(Shard(row.key, [row]), False, True)
        (alone,) = transcriber.job.shards.read(row.key)
        assert alone["text"] == texts[row.key]


def test_files_beside_the_shards(tmp_path: Path) -> None:
    transcribed(loaded(tmp_path, writes=("txt", "lhotse")), JFK, ABSENT)
    assert "country" in (tmp_path / "txt" / "jfk.txt").read_text()
    assert os.listdir(tmp_path / "txt") == ["jfk.txt"]
    assert "country" in (tmp_path / "lhotse" / "supervisions-0-0.jsonl").read_text()


def test_other_models(tmp_path: Path) -> None:
    (row,) = transcribed(loaded(tmp_path, backend="ctranslate2"), JFK)
    options = {"temperature": 0.0, "language": "en"}
    segments, _ = reference_model("tiny.en").transcribe(JFK.source, **options)
    assert tokens(row) == [segment.tokens for segment in segments]
    assert (row["backend"], row["compute_type"]) == ("ctranslate2", "float32")


@pytest.mark.parametrize("backend", ["max", "ctranslate2"])
def test_words_as_json_lines(tmp_path: Path, backend: str) -> None:
    options = {"temperature": 0.0, "word_timestamps": True}
    (row,) = transcribed(
        loaded(tmp_path, backend=backend, format="jsonl", writes=("lhotse",), options=options), JFK
    )
    assert [word["word"] for word in row["segments"][0]["words"]][:3] == [" And", " so,", " my"]


def test_batches_and_guards(tmp_path: Path) -> None:
    from whisper_max_backend import BatchedInferencePipeline

    options: dict[str, Any] = {"language": "en", "temperature": 0.0, "guards": True}
    (row,) = transcribed(loaded(tmp_path, batched=True, options=options), JFK)
    pipeline = BatchedInferencePipeline(model=our_model("tiny.en"))
    segments, _ = pipeline.transcribe(JFK.source, **options)
    assert tokens(row) == [segment.tokens for segment in segments]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"model": "/absent"}, "The model '/absent' cannot be loaded: "),
        ({"backend": "nobody"}, "There is no backend 'nobody'"),
        ({"options": {"beam_size": 0}}, "cannot be used so: The beam size must be > 0"),
        ({"options": {"guards": True}, "backend": "ctranslate2"}, "has no guards"),
    ],
)
def test_models_that_cannot_be_used(tmp_path: Path, changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(BadModel, match=problem):
        Transcriber(job(tmp_path, **changes), "run").load()


def test_the_row_says_where_in_an_archive_it_failed(tmp_path: Path) -> None:
    path = tmp_path / "t.tar"
    path.write_bytes(bytes(2000))
    row = Row("x", str(path), "tars", "512:100")
    (failed,) = transcribed(loaded(tmp_path), row)
    assert failed["error"].startswith(f"{path} (512:100): InvalidDataError: ")


def test_a_shard_can_be_sent_to_another_process(tmp_path: Path) -> None:
    import pickle

    for one in (job(tmp_path), Shard("x", [JFK]), Done(1, 2, 3.0, 4)):
        assert pickle.loads(pickle.dumps(one)) == one
