"""Corpora of short recordings, the command that transcribes them, and Ray on one machine."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq  # before a model is loaded, see docs/troubleshooting.md

from compat_tests.support.models import model_directory
from compat_tests.support.ray_environment import variables
from compat_tests.support.recordings import SAMPLING_RATE, load, write_wav

COMMAND = "from whisper_max_backend.cli import main; main()"
EXACT = ("--compute-type", "float32", "--temperature", "0")
"""What makes tokens the same on every machine."""
_SPOKEN = ("jfk", "austen", "beckett", "moby", "dialogue")


def write_recordings(folder: Path, number: int) -> list[Path]:
    """Recordings of 2 to 6 seconds, no two of them the same."""
    folder.mkdir(parents=True)
    paths = []
    for index in range(number):
        speech = load(_SPOKEN[index % len(_SPOKEN)])
        length = (2 + index % 5) * SAMPLING_RATE
        start = index * 4111 % (len(speech) - length)
        paths.append(folder / f"{index:04d}.wav")
        write_wav(paths[-1], speech[start : start + length])
    return paths


def write_damaged(folder: Path, number: int, good: Path) -> None:
    """Files of no recording whose names say that they are: cut off, empty, or something else."""
    content = good.read_bytes()
    picture = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4
    for index in range(number):
        noise = random.Random(index).randbytes(500)
        kinds = (b"", b"RIFF", content[: 20 + index % 20], noise, picture, b"some text\n" * 9)
        (folder / f"damaged-{index:04d}.wav").write_bytes(kinds[index % len(kinds)])


@contextlib.contextmanager
def surroundings() -> Iterator[dict[str, str]]:
    """The environment of a command whose temporary files, and those of Ray, go at the end."""
    # Sockets of Ray are below it, whose paths may not be long.
    folder = tempfile.mkdtemp(prefix="wm-", dir="/tmp")
    environment = {
        **os.environ,
        "TMPDIR": folder,
        "HOME": folder,
    }
    for name in variables():
        del environment[name]
    try:
        yield environment
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def command(*arguments: str | Path, model: str = "tiny.en") -> list[str]:
    """`whisper-max corpus`, with a model of the tests."""
    given = [str(argument) for argument in arguments]
    return [sys.executable, "-c", COMMAND, "corpus", *given, "--model", str(model_directory(model))]


def corpus(
    environment: dict[str, str], *arguments: str | Path, model: str = "tiny.en"
) -> subprocess.CompletedProcess[str]:
    """Runs the command to its end."""
    return subprocess.run(
        command(*arguments, model=model),
        env=environment,
        capture_output=True,
        text=True,
        timeout=1200,
    )


def begin(environment: dict[str, str], *arguments: str | Path) -> subprocess.Popen[str]:
    """The command, which can be ended with all that it starts."""
    return subprocess.Popen(
        command(*arguments),
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for_shards(
    out: Path, number: float, process: subprocess.Popen[str], seconds: float = 300
) -> None:
    """Until so many are written, or for so long at most."""
    deadline = time.monotonic() + seconds
    while len(list((out / "shards").glob("*.parquet"))) < number:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def rows_in(out: Path) -> list[dict[str, Any]]:
    """Of all shards of a corpus, in parquet or JSON lines."""
    rows: list[dict[str, Any]] = []
    for path in sorted((out / "shards").iterdir()):
        assert not path.name.startswith("."), "nothing is left half-written"
        if path.suffix == ".parquet":
            rows += pq.ParquetFile(path).read().to_pylist()
        else:
            rows += [json.loads(line) for line in path.read_text().splitlines()]
    return rows


def tokens_of(rows: Sequence[dict[str, Any]]) -> dict[str, list[list[int]]]:
    """By key; each key may be there once only."""
    found = {row["key"]: [segment["tokens"] for segment in row["segments"]] for row in rows}
    assert len(found) == len(rows), "a key is there more than once"
    return found


class Cluster:
    """Three machines of Ray on the loopback interface: a head without cores, and two with one."""

    def __init__(self, environment: dict[str, str]) -> None:
        os.environ["RAY_TMPDIR"] = environment["TMPDIR"]
        folder = Path(environment["TMPDIR"]) / "ray"
        folder.mkdir()
        from ray.cluster_utils import Cluster as Machines

        self._machines: Any = Machines(
            initialize_head=True,
            head_node_args={
                **{"num_cpus": 0, "num_gpus": 0, "node_ip_address": "127.0.0.1"},
                **{"object_store_memory": 100 << 20, "include_dashboard": False},
                "temp_dir": str(folder),
            },
        )
        self.address = str(self._machines.address)
        self._nodes: list[Any] = [self._add(), self._add()]

    def _add(self) -> Any:
        return self._machines.add_node(
            num_cpus=1, num_gpus=0, node_ip_address="127.0.0.1", object_store_memory=100 << 20
        )

    def kill(self, index: int) -> None:
        """End every process of a machine at once, as a power cut does."""
        node = self._nodes.pop(index)
        ours = [one.process.pid for kind in node.all_processes.values() for one in kind]
        processes = [psutil.Process(pid) for pid in ours if psutil.pid_exists(pid)]
        for process in processes[:]:
            processes += process.children(recursive=True)
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._machines.remove_node(node, allow_graceful=False)

    def mend(self) -> None:
        """Two machines with cores again."""
        while len(self._nodes) < 2:
            self._nodes.append(self._add())

    def close(self) -> None:
        self._machines.shutdown()


@contextlib.contextmanager
def three_machines() -> Iterator[tuple[Cluster, dict[str, str]]]:
    """A cluster, and the environment of commands that use it."""
    before = dict(os.environ)
    with surroundings() as environment:
        environment |= variables()
        cluster = Cluster(environment)
        try:
            yield cluster, environment
        finally:
            cluster.close()
            os.environ.clear()
            os.environ.update(before)
