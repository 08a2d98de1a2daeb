"""A corpus from its inputs to its report."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from .. import __version__
from ..system.file_locks import LOCKLESS, lock
from ..writers import write
from . import report
from .cluster import actors, cluster
from .plan import Plan, rows_of
from .progress import Watch
from .readers import readers
from .run import Run
from .shards import CannotWrite, remove_leftovers
from .transcribe import Job, memory, on_cores
from .writers import writers

_SETTINGS = "corpus.json"
_RUNS = "runs.jsonl"


@dataclasses.dataclass(frozen=True)
class Resources:
    """Where a run takes place.

    Attributes:
        ray: "local", or the address of a cluster.
        dashboard: Whether Ray's dashboard is started with a local one.
        actors: How many; None for as many as there is room for.
        threads: Cores of each; None as `cluster.actors` says.
        gpus: GPUs of each; None as `cluster.actors` says.
    """

    ray: str = "local"
    dashboard: bool = False
    actors: int | None = None
    threads: int | None = None
    gpus: float | None = None


def transcribe_corpus(
    inputs: Sequence[str],
    job: Job,
    resources: Resources,
    *,
    retry_errors: bool = False,
    max_errors: int | None = None,
    shard_rows: int | None = None,
) -> None:
    """Transcribe what is not transcribed yet, and write the report.

    Args:
        inputs: Paths, addresses and patterns.
        job: What to do with each recording.
        resources: Where.
        retry_errors: Transcribe again what failed in earlier runs.
        max_errors: Recordings that may fail before the run ends.
        shard_rows: Recordings in a shard, at most.

    Raises:
        ValueError: Bad inputs, or the corpus was begun with another job.
        RunFailed: The run could not go on; what is written stays.
        OSError: An input cannot be read, or the corpus cannot be written.
    """
    if unknown := set(job.writes) - set(writers()):
        raise ValueError(
            f"There is no writer {', '.join(sorted(unknown))} (there are: {', '.join(writers())})"
        )
    begun = time.time()
    with opened_corpus(job):
        plan = Plan(job.folder / "plan")
        new = plan.extend(rows_of(inputs, readers()), shard_rows)
        done = job.shards.names()
        if retry_errors:
            done -= _with_errors(job, done)
        left = plan.size(done)
        _tell(f"{plan.size().rows} recordings, {new} of them new, {left.rows} to do")
        watch = Watch(left)
        try:
            if left.rows:
                _run(job, resources, plan, done, watch, retry_errors, max_errors)
        finally:
            watch.close()
        _finish(job, watch, begun)


def _run(
    job: Job,
    resources: Resources,
    plan: Plan,
    done: frozenset[str],
    watch: Watch,
    again: bool,
    max_errors: int | None,
) -> None:
    with cluster(resources.ray, resources.dashboard):
        wanted = actors(resources.threads, resources.gpus, job.device, resources.actors)
        if not wanted.gpus:
            recordings = watch.left.rows // max(1, wanted.number())
            cores = on_cores(job.backend, wanted.cpus, recordings)
            job = dataclasses.replace(job, device="cpu", loading={**job.loading, **cores})
        number = sum(name not in done for name in plan.names())
        run = Run(
            *(job, plan.shards(done), number, wanted, watch), again=again, max_errors=max_errors
        )
        run.finish()


@contextlib.contextmanager
def opened_corpus(job: Job) -> Iterator[None]:
    """The folder of a corpus, for one run at a time.

    Raises:
        ValueError: It belongs to another job, or to a run that goes on.
        CannotWrite: It cannot be written.
    """
    settings = {
        "model": job.model,
        "backend": job.backend,
        "compute_type": job.compute_type,
        "batched": job.batched,
        "format": job.format,
        "writes": sorted(job.writes),
        "options": job.options,
        "version": __version__,
    }
    try:
        for name in ("shards", "plan", "attempts"):
            (job.folder / name).mkdir(parents=True, exist_ok=True)
        with _locked(job.folder / "lock", job.folder):
            _check_settings(job.folder, settings)
            for name in ("shards", "plan"):
                remove_leftovers(job.folder / name)
            yield
            remove_leftovers(job.folder / "shards")  # of processes that have died in this run
    except CannotWrite:
        raise
    except OSError as error:
        if error.filename is None or str(job.folder) not in str(error.filename):
            raise
        raise CannotWrite(error.errno, error.strerror, str(job.folder)) from error


@contextlib.contextmanager
def _locked(path: Path, folder: Path) -> Iterator[None]:
    try:
        held = lock(path)
    except OSError as error:
        if error.errno not in LOCKLESS:
            raise
        yield  # nothing tells of another run then; the shards are exact all the same
        return
    if held is None:
        raise ValueError(f"{folder}: another run writes to this corpus: wait for it, or end it")
    try:
        yield
    finally:
        os.close(held)


def _check_settings(folder: Path, settings: dict[str, Any]) -> None:
    path = folder / _SETTINGS
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        write(path, json.dumps(settings, indent=1) + "\n")
        return
    settings = json.loads(json.dumps(settings))  # as JSON has them
    if other := [name for name in settings if kept.get(name) != settings[name]]:
        raise ValueError(
            f"{folder}: this corpus was begun with another {', '.join(other)} ({path} has them): "
            "give the same, or another --out"
        )


def _with_errors(job: Job, names: frozenset[str]) -> frozenset[str]:
    return frozenset(
        name
        for name in names
        if any(row["error"] is not None for row in job.shards.read(name, ["error"]))
    )


def _finish(job: Job, watch: Watch, begun: float) -> None:
    """Keep the run's figures, show the summary and write the page."""
    figures = {
        "begun": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(begun)),
        "total_s": time.time() - begun,
        **watch.figures(),
        "driver_memory": memory("VmHWM"),
    }
    with open(job.folder / _RUNS, "a", encoding="utf-8") as file:
        file.write(json.dumps(figures) + "\n")
    summary = report.summary_of(job.shards)
    settings = json.loads((job.folder / _SETTINGS).read_text(encoding="utf-8"))
    write(job.folder / "report.html", report.page(summary, figures, settings))
    Console().print(report.table(summary, figures))
    _tell(f"The page is {job.folder / 'report.html'}")


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
