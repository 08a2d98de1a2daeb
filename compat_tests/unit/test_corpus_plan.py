"""What a corpus is read from, and the plan of its shards."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from compat_tests.support.recordings import audio_file
from whisper_max_backend.audio import checked_audio, decode_part
from whisper_max_backend.corpus.places import address_of, beside
from whisper_max_backend.corpus.plan import Plan, Size, in_shards, rows_of, table_of
from whisper_max_backend.corpus.readers import readers
from whisper_max_backend.hookspecs import Row

JFK = audio_file("jfk.flac")


def rows(*inputs: Path | str) -> list[Row]:
    return list(rows_of(map(str, inputs), readers()))


def lines(path: Path, *entries: Any) -> Path:
    text = "".join(json.dumps(entry) + "\n" for entry in entries)
    path.write_text(text)
    return path


def samples(row: Row) -> np.ndarray:
    """What is transcribed."""
    audio = readers()[row.reader].audio(row)
    return checked_audio(audio, 16_000)


def same_as_jfk(row: Row) -> bool:
    return bool(np.array_equal(samples(row), checked_audio(str(JFK), 16_000)))


# Files


def test_a_folder_and_what_is_in_it(tmp_path: Path) -> None:
    for name in ("b.WAV", "a/c.mp3", "a/notes.txt", "README.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"12")
    found = rows(tmp_path)
    assert found == [
        Row("b.WAV", str(tmp_path / "b.WAV"), size=2),
        Row("a/c.mp3", str(tmp_path / "a/c.mp3"), size=2),
    ]


def test_names_and_patterns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("x/1/a.bin", "x/2/a.bin", "x/[1].bin"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert [row.key for row in rows("x/*/a.bin")] == ["1/a.bin", "2/a.bin"]
    (row,) = rows("x/[1].bin")
    assert (row.key, row.source) == ("x/[1].bin", str(tmp_path / "x/[1].bin"))


@pytest.mark.parametrize("given", ["absent.wav", "absent/*.wav"])
def test_inputs_that_are_not_there(given: str) -> None:
    with pytest.raises(FileNotFoundError, match=r"^absent"):
        rows(given)


def test_a_folder_without_recordings(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no sound or film"):
        rows(tmp_path)


def test_addresses_of_a_store() -> None:
    given = "s3://bucket/talks/?region=x"
    assert address_of("bucket/talks/a b.wav", given, "bucket/talks") == (
        "s3://bucket/talks/a%20b.wav?region=x"
    )
    assert beside("s3://bucket/list.txt", "a.wav") == "s3://bucket/a.wav"
    with pytest.raises(ValueError, match="nothing://x cannot be read"):
        rows("nothing://x")


def test_a_store(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "jfk.flac").write_bytes(JFK.read_bytes())
    (row,) = rows(f"file://{tmp_path}")
    assert (row.key, row.source) == ("a/jfk.flac", f"file://{tmp_path}/a/jfk.flac")
    assert same_as_jfk(row)
    with pytest.raises(FileNotFoundError):
        rows(f"file://{tmp_path}/absent.wav")


@pytest.mark.slow
def test_an_s3_store(monkeypatch: pytest.MonkeyPatch) -> None:
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        address, port = server.get_host_and_port()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{address}:{port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "testing")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        store = boto3.client("s3")
        store.create_bucket(Bucket="archive")
        store.put_object(Bucket="archive", Key="talks/a b/jfk.flac", Body=JFK.read_bytes())
        line = b'{"audio_filepath": "talks/a b/jfk.flac"}'
        store.put_object(Bucket="archive", Key="manifest.jsonl", Body=line)
        (row,) = rows("s3://archive/talks")
        assert (row.key, row.source) == ("a b/jfk.flac", "s3://archive/talks/a%20b/jfk.flac")
        (listed,) = rows("s3://archive/manifest.jsonl")
        assert listed.key == "talks/a b/jfk.flac"
        assert rows("s3://archive/talks/a%20b")[0].source == row.source
        assert same_as_jfk(row)
        assert same_as_jfk(listed)
        with pytest.raises(FileNotFoundError, match="s3://archive/none: there is no such file"):
            rows("s3://archive/none")
    finally:
        server.stop()


# Lists and manifests


def test_a_list(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a.wav\n\n/b/c.wav\n s3://d/e.wav \n")
    assert [(row.key, row.source) for row in rows(tmp_path / "list.txt")] == [
        ("a.wav", str(tmp_path / "a.wav")),
        ("/b/c.wav", "/b/c.wav"),
        ("s3://d/e.wav", "s3://d/e.wav"),
    ]


def test_nemos_manifest(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "manifest.json",
        {"audio_filepath": "a.wav", "duration": 2, "text": "said"},
        {"audio_filepath": "/b.wav", "duration": 1.5, "offset": 3, "id": 7},
        {"audio_filepath": "/b.wav", "duration": 1.5, "offset": 4.25},
    )
    assert rows(path) == [
        Row("a.wav", str(tmp_path / "a.wav"), duration=2.0),
        Row("7", "/b.wav", offset=3.0, duration=1.5),
        Row("/b.wav@4.25", "/b.wav", offset=4.25, duration=1.5),
    ]


def test_lhotses_manifests(tmp_path: Path) -> None:
    recording = {
        "id": "r",
        "sources": [{"type": "file", "channels": [0], "source": "/r.wav"}],
        "sampling_rate": 16000,
        "num_samples": 160_000,
        "duration": 10.0,
    }
    cut = {"id": "c", "start": 2.0, "duration": 3.0, "channel": 0, "recording": recording}
    whole = {**cut, "id": "w", "start": 0.0, "duration": 10.0}
    with gzip.open(tmp_path / "cuts.jsonl.gz", "wt") as file:
        file.write("\n".join(map(json.dumps, (recording, cut, whole))))
    assert rows(tmp_path / "cuts.jsonl.gz") == [
        Row("r", "/r.wav", duration=10.0),
        Row("c", "/r.wav", offset=2.0, duration=3.0),
        Row("w", "/r.wav", duration=10.0),
    ]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "Expecting property name"),
        ("[]", "a JSON object"),
        ("{}", "neither NeMo's"),
        ('{"audio_filepath": "a", "offset": 1}', "there is no duration"),
        ('{"audio_filepath": "a", "duration": "x"}', "could not convert"),
        ('{"sources": [], "id": "x", "duration": 1}', "one file or url"),
        ('{"sources": [{"type": "command"}], "id": "x", "duration": 1}', "this one is: command"),
        ('{"recording": {}, "start": 0}', "there is no 'duration'"),
    ],
)
def test_damaged_manifests(tmp_path: Path, line: str, problem: str) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"audio_filepath": "a"}\n' + line)
    with pytest.raises(ValueError, match=rf"m.jsonl, line 2: .*{problem}"):
        rows(path)


@pytest.mark.parametrize("name", ["jfk.flac", "beckett.opus"])
def test_a_part_has_the_samples_of_the_whole(name: str) -> None:
    whole = checked_audio(str(audio_file(name)), 16_000)
    for offset, duration in ((0.0, 1.0), (2.345, 4.2), (8.0, 60.0)):
        part = decode_part(str(audio_file(name)), 16_000, offset, duration)
        first = round(offset * 16_000)
        expected = whole[first : first + round(duration * 16_000)]
        assert np.array_equal(part, expected), (offset, duration)
    with pytest.raises(ValueError, match="begins at 60 s, but the recording has"):
        decode_part(str(audio_file(name)), 16_000, 60.0, 1.0)


# Tables and archives


@pytest.mark.parametrize("column", ["paths", "bytes", "struct"])
def test_parquet(tmp_path: Path, column: str) -> None:
    content, path = JFK.read_bytes(), str(JFK)
    audio = {
        "paths": pa.array([path] * 3),
        "bytes": pa.array([content] * 3),
        "struct": pa.array([{"bytes": content, "path": "x"}] * 2 + [{"bytes": None, "path": path}]),
    }[column]
    table = pa.table({"id": ["a", "b", None], "duration": [11.0, None, 3.0], "audio": audio})
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=2)
    found = rows(tmp_path / "t.parquet")
    assert [row.key for row in found] == ["a", "b", f"{tmp_path}/t.parquet/2"]
    assert all(map(same_as_jfk, found))
    assert found[0].duration == (11.0 if column == "paths" else None)


def test_parquet_without_recordings(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["x"]}), tmp_path / "t.parquet")
    with pytest.raises(ValueError, match="t.parquet: no column holds recordings: name it audio"):
        rows(tmp_path / "t.parquet")


def test_a_saved_data_set(tmp_path: Path) -> None:
    """As `datasets` lays it out."""
    audio = pa.array([{"bytes": JFK.read_bytes(), "path": None}] * 3)
    table = pa.table({"audio": audio, "duration": [1.0, 2.0, 3.0]})
    for split in ("train", "test"):
        folder = tmp_path / split
        folder.mkdir()
        with pa.ipc.new_stream(f"{folder}/data-0.arrow", table.schema) as stream:
            stream.write_table(table, max_chunksize=2)
        lines(folder / "state.json", {"_data_files": [{"filename": "data-0.arrow"}]})
    lines(tmp_path / "dataset_dict.json", {"splits": ["train", "test"]})
    found = rows(tmp_path)
    names = [row.key.removeprefix(str(tmp_path)) for row in found]
    assert names == [f"/{split}/{number}" for split in ("train", "test") for number in range(3)]
    assert [row.duration for row in found] == [1.0, 2.0, 3.0] * 2
    assert all(map(same_as_jfk, found))


def test_tar_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    content = JFK.read_bytes()
    with tarfile.open("t.tar", "w") as archive:
        for name in ("0001.json", "0001.flac", "0002.flac"):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    found = rows("t.tar")
    assert [row.key for row in found] == ["t.tar/0001.flac", "t.tar/0002.flac"]
    assert all(map(same_as_jfk, found))
    (tmp_path / "x.tar").write_bytes(b"no archive" * 100)
    with pytest.raises(ValueError, match=r"x\.tar: this is no tar file"):
        rows("x.tar")
    with pytest.raises(ValueError, match=r"x\.tar\.gz: .* unpack it"):
        rows(*map(str, [Path("x.tar").rename("x.tar.gz")]))


# Plans


def test_the_longest_come_first() -> None:
    durations = [3.0, None, 2000.0, 900.0, 901.0, 5.0]
    sizes = [None, 7, None, None, None, None]
    table = in_shards(
        table_of(
            Row(str(index), "x", duration=duration, size=size)
            for index, (duration, size) in enumerate(zip(durations, sizes, strict=True))
        ),
        most_rows=2,
    )
    assert table["key"].to_pylist() == ["2", "4", "3", "5", "0", "1"]
    assert table["shard"].to_pylist() == [0, 1, 2, 2, 3, 3]


def test_a_large_corpus_has_no_more_shards_than_a_folder_can_hold() -> None:
    table = in_shards(table_of(Row(str(index), "x", duration=3600.0) for index in range(250_000)))
    assert table["shard"].to_pylist()[-1] + 1 == 125_000, (
        "shards of two hours, not of two and a half"
    )
    assert table["shard"].to_pylist()[:4] == [0, 0, 1, 1]


def test_equal_ones_stay_in_their_order() -> None:
    table = in_shards(table_of(Row(str(index), "x") for index in range(100_000)))
    assert table["key"].to_pylist() == [str(index) for index in range(100_000)]
    assert table["shard"].to_pylist() == [index // 256 for index in range(100_000)]


def test_keys_are_there_once(tmp_path: Path) -> None:
    given = [Row(key, "x") for key in "abcabcdefgabcdefg"]
    with pytest.raises(ValueError, match=r"^7 keys .* \(a, b, c, d, e, \.\.\.\): give each"):
        Plan(tmp_path / "plan").extend(given)
    assert not (tmp_path / "plan").exists()
    with pytest.raises(ValueError, match="no recording"):
        Plan(tmp_path / "plan").extend([])


def test_a_plan_grows(tmp_path: Path) -> None:
    plan = Plan(tmp_path / "plan")
    given = [Row(str(index), "s", "r", "p", 1.0, 10.0 + index, 3) for index in range(10)]
    assert plan.extend(given[:6], most_rows=4) == 6
    assert plan.extend(given[:6]) == 0
    assert plan.extend(given, most_rows=4) == 4
    names = ["00000-000000", "00000-000001", "00001-000000"]
    assert list(plan.names()) == names
    assert [shard.name for shard in plan.shards()] == names
    planned = [row for shard in plan.shards() for row in shard.rows]
    assert sorted(planned, key=lambda row: row.key) == given
    assert plan.size() == Size(10, 145.0)
    left = frozenset(names[:1] + names[2:])
    assert keys(plan.shards(left)) == [["1", "0"]]
    assert plan.size(left) == Size(2, 21.0)
    plan.extend([Row("x", "s")])
    assert plan.size().seconds is None


def keys(shards: Any) -> list[Sequence[str]]:
    return [[row.key for row in shard.rows] for shard in shards]


def test_a_plan_is_read_in_parts(tmp_path: Path) -> None:
    """Shards go over the ends of the parts."""
    plan = Plan(tmp_path / "plan")
    plan.extend((Row(str(index), "s") for index in range(70_000)), most_rows=100)
    assert keys(plan.shards()) == [
        [str(index) for index in range(start, start + 100)] for start in range(0, 70_000, 100)
    ]
