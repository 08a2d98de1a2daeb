"""`whisper-max corpus` on Ray: exact, whatever dies on the way.

`python -m benchmarks corpus` does the same with more recordings, more often.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from compat_tests.support.corpus import (
    EXACT,
    Cluster,
    begin,
    corpus,
    rows_in,
    surroundings,
    three_machines,
    tokens_of,
    wait_for_shards,
    write_damaged,
    write_recordings,
)
from compat_tests.support.models import our_model, reference_model
from compat_tests.support.recordings import AUDIO

pytestmark = pytest.mark.slow
RECORDINGS = 16
"""So many that most of them are still to do when something dies."""


@pytest.fixture(scope="module")
def machines() -> Iterator[tuple[Cluster, dict[str, str]]]:
    with three_machines() as started:
        yield started


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus") / "recordings"
    write_recordings(folder, RECORDINGS)
    return folder


@pytest.fixture(scope="module")
def expected(recordings: Path) -> dict[str, list[list[int]]]:
    """The tokens of `transcribe` in this process."""
    return {path.name: tokens(our_model("tiny.en"), path) for path in recordings.iterdir()}


def tokens(model: Any, path: Path) -> list[list[int]]:
    return [segment.tokens for segment in model.transcribe(str(path), temperature=0.0)[0]]


def open_addresses(process: subprocess.Popen[str]) -> set[str]:
    """Where the command, and what it has started, can be reached."""
    found = set()
    command = psutil.Process(process.pid)
    for one in (command, *command.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            sockets = one.net_connections("inet")
            found |= {socket.laddr.ip for socket in sockets if socket.status == "LISTEN"}
    assert found, "Ray listens nowhere"
    return found


def test_tokens_are_those_of_transcribe(tmp_path: Path) -> None:
    """On a Ray that the command starts. A second run does nothing."""
    out = tmp_path / "out"
    with surroundings() as environment:
        given = (AUDIO, "--out", out, *EXACT, "--write", "srt", "--word-timestamps")
        process = begin(environment, *given)
        wait_for_shards(out, 1, process)
        assert open_addresses(process) <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}
        told = process.communicate(timeout=600)[1]
        assert process.returncode == 0, told
        assert not list(Path(environment["TMPDIR"]).iterdir()), "Ray leaves nothing"
        written = {path: path.stat().st_mtime_ns for path in (out / "shards").iterdir()}
        done = corpus(environment, *given)
        assert done.returncode == 0, done.stderr
        assert "9 recordings, 0 of them new, 0 to do" in done.stderr
        assert {path: path.stat().st_mtime_ns for path in (out / "shards").iterdir()} == written
        other = corpus(environment, AUDIO, "--out", out, *EXACT, "--beam-size", "2")
        assert other.returncode == 1
        assert "begun with another writes, options" in other.stderr
    model = our_model("tiny.en")
    options = {"temperature": 0.0, "word_timestamps": True}
    rows = {row["key"]: row for row in rows_in(out)}
    for path in (*AUDIO.glob("*.opus"), *AUDIO.glob("*.flac")):
        row = rows.pop(path.name)
        segments, info = model.transcribe(str(path), **options)
        heard = list(segments)
        assert row["text"] == "".join(segment.text for segment in heard)
        assert [one["tokens"] for one in row["segments"]] == [one.tokens for one in heard]
        times = [(word["word"], word["start"]) for one in row["segments"] for word in one["words"]]
        assert times == [(word.word, word.start) for one in heard for word in one.words]
        assert (row["duration"], row["language"]) == (info.duration, info.language)
        assert (row["backend"], row["compute_type"], row["error"]) == ("max", "float32", None)
        assert (out / "srt" / f"{path.name}.srt").read_text().count("-->") == len(heard)
    assert not rows
    assert "Failed" in (out / "report.html").read_text()


def test_another_backend(tmp_path: Path, machines: tuple[Cluster, dict[str, str]]) -> None:
    cluster, environment = machines
    out = tmp_path / "out"
    given = ("--ray", cluster.address, "--backend", "ctranslate2", "--output-format", "jsonl")
    done = corpus(environment, AUDIO / "jfk.flac", "--out", out, *given, *EXACT)
    assert done.returncode == 0, done.stderr
    (row,) = rows_in(out)
    assert row["backend"] == "ctranslate2"
    heard = [segment["tokens"] for segment in row["segments"]]
    assert heard == tokens(reference_model("tiny.en"), AUDIO / "jfk.flac")


def test_a_machine_dies(
    tmp_path: Path,
    machines: tuple[Cluster, dict[str, str]],
    recordings: Path,
    expected: dict[str, list[list[int]]],
) -> None:
    cluster, environment = machines
    out = tmp_path / "out"
    process = begin(environment, recordings, "--out", out, "--ray", cluster.address, *EXACT)
    try:
        wait_for_shards(out, 3, process)
        cluster.kill(0)
        told = process.communicate(timeout=300)[1]
        assert process.returncode == 0, told
        assert "A process is lost, and replaced" in told
        assert tokens_of(rows_in(out)) == expected
    finally:
        process.kill()
        cluster.mend()


def test_the_command_dies(
    tmp_path: Path,
    machines: tuple[Cluster, dict[str, str]],
    recordings: Path,
    expected: dict[str, list[list[int]]],
) -> None:
    """It is killed, and the next one ends what it has begun."""
    cluster, environment = machines
    out = tmp_path / "out"
    given = (recordings, "--out", out, "--ray", cluster.address, *EXACT)
    process = begin(environment, *given)
    wait_for_shards(out, 3, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    before = len(list((out / "shards").glob("*.parquet")))
    assert before < len(expected)
    done = corpus(environment, *given)
    assert done.returncode == 0, done.stderr
    assert ", 0 of them new, " in done.stderr
    assert f"{RECORDINGS} to do" not in done.stderr
    assert tokens_of(rows_in(out)) == expected


def test_a_full_disk(
    tmp_path: Path,
    machines: tuple[Cluster, dict[str, str]],
    recordings: Path,
    expected: dict[str, list[list[int]]],
) -> None:
    cluster, environment = machines
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.decode().strip()}")
    try:
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(900 << 10))
        out = disk / "out"
        given = (recordings, "--out", out, "--ray", cluster.address, *EXACT)
        done = corpus(environment, *given)
        assert done.returncode == 1
        assert "No space left on device" in done.stderr
        assert "make room there, and give the same command again" in done.stderr
        assert "Traceback" not in done.stderr
        written = tokens_of(rows_in(out))
        assert written.items() <= expected.items()
        ballast.unlink()
        done = corpus(environment, *given)
        assert done.returncode == 0, done.stderr
        assert tokens_of(rows_in(out)) == expected
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_files_that_are_no_audio(tmp_path: Path, machines: tuple[Cluster, dict[str, str]]) -> None:
    cluster, environment = machines
    recordings = tmp_path / "recordings"
    good = {path.name for path in write_recordings(recordings, 6)}
    write_damaged(recordings, 30, AUDIO / "jfk.flac")
    given = (recordings, "--ray", cluster.address, *EXACT)
    done = corpus(environment, *given, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    rows = rows_in(tmp_path / "out")
    failed = [row for row in rows if row["error"] is not None]
    assert {row["key"] for row in rows if row["error"] is None} == good
    assert len(failed) == 30
    assert all(row["error"].startswith(f"{recordings / row['key']}: ") for row in failed)
    limited = corpus(environment, *given, "--out", tmp_path / "limited", "--max-errors", "10")
    assert limited.returncode == 1
    assert "recordings have failed, more than --max-errors 10" in limited.stderr


DEADLY = """
import os, signal
from whisper_max_backend import hookimpl
from whisper_max_backend.corpus import Row

class Reader:
    name = "deadly"
    def reads(self, source): return source.endswith(".deadly")
    def rows(self, source, name):
        for line in open(source):
            yield Row(line.strip(), line.strip(), self.name)
    def audio(self, row):
        if "moby" in row.source:
            os.kill(os.getpid(), signal.SIGKILL)
        return row.source

@hookimpl
def register_readers(register):
    register(Reader())
"""


def test_a_file_that_ends_every_process_that_reads_it(tmp_path: Path) -> None:
    """Whatever is beside it in its shard is transcribed."""
    site = tmp_path / "site"
    information = site / "deadly-1.dist-info"
    information.mkdir(parents=True)
    (site / "deadly.py").write_text(DEADLY)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: deadly\nVersion: 1\n")
    (information / "entry_points.txt").write_text("[whisper_max_backend]\ndeadly = deadly\n")
    names = ("jfk.flac", "moby.opus", "beckett.opus", "command.flac")
    (tmp_path / "list.deadly").write_text("\n".join(str(AUDIO / name) for name in names))
    with surroundings() as environment:
        environment |= {"PYTHONPATH": str(site), "WHISPER_MAX_PLUGINS": "deadly"}
        given = ("--out", tmp_path / "out", "--shard-rows", "4", *EXACT)
        done = corpus(environment, tmp_path / "list.deadly", *given)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("A process is lost, and replaced") == 3
    rows = {Path(row["key"]).name: row["error"] for row in rows_in(tmp_path / "out")}
    dead = rows.pop("moby.opus")
    assert dead == f"{AUDIO / 'moby.opus'}: the process that transcribed it died 3 times"
    assert rows == dict.fromkeys(("jfk.flac", "beckett.opus", "command.flac"))
