"""Machines that die, commands that die, a full disk, and files that are no audio."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from compat_tests.support.corpus import (
    EXACT,
    Cluster,
    begin,
    corpus,
    rows_in,
    three_machines,
    tokens_of,
    wait_for_shards,
    write_damaged,
    write_recordings,
)
from compat_tests.support.recordings import AUDIO

RECORDINGS = 300
ROUNDS = 5
DAMAGED = 1000
GOOD = 200
_DISK = 8 << 20
"""Bytes of the disk that becomes full."""
_PAGE = 4096

Tokens = dict[str, list[list[int]]]


def machines(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """A machine of two is killed at a random moment, five times over."""
    broken = []
    with three_machines() as (cluster, environment):
        recordings, expected = _undisturbed(folder, cluster, environment)
        shards = _shards(folder)
        moments = []
        for number in range(ROUNDS):
            out = folder / f"machine-{number}"
            process, moment = _under_way(environment, recordings, out, cluster, shards)
            moments.append(moment)
            cluster.kill(random.randrange(2))
            told = process.communicate()[1]
            if process.returncode:
                broken.append(f"round {number} ended with {process.returncode}: {told[-500:]}")
            broken += _compared(out, expected, f"round {number}")
            cluster.mend()
    return {"recordings": RECORDINGS, "killed_at": moments}, broken


def commands(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """The command is killed at a random moment and given again, five times over."""
    broken = []
    with three_machines() as (cluster, environment):
        recordings, expected = _undisturbed(folder, cluster, environment)
        shards = _shards(folder)
        moments = []
        for number in range(ROUNDS):
            out = folder / f"command-{number}"
            process, moment = _under_way(environment, recordings, out, cluster, shards)
            moments.append(moment)
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            again = corpus(environment, *_given(recordings, out, cluster))
            if again.returncode:
                broken.append(f"round {number}, again: {again.stderr[-500:]}")
            broken += _compared(out, expected, f"round {number}")
    return {"recordings": RECORDINGS, "killed_at": moments}, broken


def disk(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """The disk of the corpus is full, until there is room again."""
    broken = []
    with three_machines() as (cluster, environment):
        recordings, expected = _undisturbed(folder, cluster, environment)
        small = folder / "disk"
        small.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={_DISK}", "tmpfs", str(small)]
        subprocess.run(mount, check=True)
        try:
            room = _taken(folder / "undisturbed") - _taken(folder / "undisturbed" / "shards") // 2
            (small / "ballast").write_bytes(bytes(_DISK - room))
            given = _given(recordings, small / "out", cluster)
            full = corpus(environment, *given)
            if full.returncode != 1 or "No space left on device" not in full.stderr:
                broken.append(f"on a full disk: {full.returncode}, {full.stderr[-500:]}")
            written = tokens_of(rows_in(small / "out"))
            if not written.items() <= expected.items():
                broken.append("what was written before the disk was full is not right")
            (small / "ballast").unlink()
            again = corpus(environment, *given)
            if again.returncode:
                broken.append(f"with room again: {again.stderr[-500:]}")
            broken += _compared(small / "out", expected, "with room again")
        finally:
            subprocess.run(["umount", str(small)], check=True)
    return {"recordings": RECORDINGS, "written_before_it_was_full": len(written)}, broken


def damaged(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """A thousand files that are no audio, among two hundred that are."""
    broken = []
    recordings = folder / "recordings"
    good = {path.name for path in write_recordings(recordings, GOOD)}
    write_damaged(recordings, DAMAGED, AUDIO / "jfk.flac")
    with three_machines() as (cluster, environment):
        given = _given(recordings, folder / "out", cluster)
        done = corpus(environment, *given)
        rows = rows_in(folder / "out")
        failed = [row for row in rows if row["error"] is not None]
        if done.returncode:
            broken.append(f"ended with {done.returncode}: {done.stderr[-500:]}")
        if {row["key"] for row in rows if row["error"] is None} != good:
            broken.append("other files than the good ones have transcripts")
        if unnamed := [row["key"] for row in failed if row["source"] not in row["error"]]:
            broken.append(f"errors that do not name the file: {unnamed[:5]}")
        limited = _given(recordings, folder / "limited", cluster)
        ended = corpus(environment, *limited, "--max-errors", "10")
        if ended.returncode != 1 or "more than --max-errors 10" not in ended.stderr:
            broken.append(f"with --max-errors: {ended.returncode}, {ended.stderr[-500:]}")
    if len(failed) != DAMAGED:
        broken.append(f"{len(failed)} errors instead of {DAMAGED}")
    return {"errors": len(failed), "transcripts": len(rows) - len(failed)}, broken


def _undisturbed(
    folder: Path, cluster: Cluster, environment: dict[str, str]
) -> tuple[Path, Tokens]:
    recordings = folder / "recordings"
    write_recordings(recordings, RECORDINGS)
    done = corpus(environment, *_given(recordings, folder / "undisturbed", cluster))
    assert done.returncode == 0, done.stderr
    expected = tokens_of(rows_in(folder / "undisturbed"))
    assert len(expected) == RECORDINGS
    return recordings, expected


def _shards(folder: Path) -> int:
    """Into how many the undisturbed run has put the recordings; all runs do the same."""
    return len(list((folder / "undisturbed" / "shards").iterdir()))


def _taken(folder: Path) -> int:
    """Bytes of a folder's files, as whole pages of memory."""
    sizes = (path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return sum(-(-size // _PAGE) * _PAGE for size in sizes)


def _given(recordings: Path, out: Path, cluster: Cluster) -> tuple[str | Path, ...]:
    return (recordings, "--out", out, "--ray", cluster.address, *EXACT)


def _under_way(
    environment: dict[str, str], recordings: Path, out: Path, cluster: Cluster, shards: int
) -> tuple[subprocess.Popen[str], float]:
    """The command at a random moment, and which part of the shards is done by then."""
    process = begin(environment, *_given(recordings, out, cluster))
    moment = random.uniform(0.02, 0.9)
    wait_for_shards(out, moment * shards, process, seconds=3600)
    time.sleep(random.uniform(0, 0.5))
    return process, moment


def _compared(out: Path, expected: Tokens, name: str) -> list[str]:
    rows = rows_in(out)
    keys = sorted(row["key"] for row in rows)
    if keys != sorted(expected):
        return [f"{name}: keys are missing, or there more than once"]
    return [] if tokens_of(rows) == expected else [f"{name}: other tokens"]
