"""What an actor does: it loads a model, then transcribes shards and writes them."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import faster_whisper
import numpy as np
from faster_whisper.transcribe import Segment, TranscriptionInfo

from .. import BatchedInferencePipeline, WhisperModel, __version__, load_model
from ..audio import decode_part
from ..hookspecs import Reader, Row
from ..many import default_in_flight, transcribe_many
from ..system.allocator import return_large_blocks
from .attempts import MOST_DEATHS, Attempts
from .plan import Shard
from .readers import readers
from .shards import SCHEMA, CannotWrite, Shards
from .writers import writers

MOST_SECONDS = 8 * 3600.0
"""Of audio at one actor, as far as it is known: an hour takes 0.5 GB while it is transcribed."""
_RATE = 16_000  # Hz


_SEVERAL_AT_ONCE = ("auto", "max", "ctranslate2")
"""Backends whose models have `num_workers`."""


class BadModel(Exception):
    """The model cannot be loaded, or does not take the options."""


@dataclass(frozen=True)
class Job:
    """What is done with each recording, the same for all.

    Attributes:
        folder: Of the corpus, absolute.
        model: Name or path.
        backend: As for `load_model`.
        device: Likewise.
        compute_type: Likewise.
        loading: Further arguments of `load_model`.
        options: Of `transcribe`.
        batched: Transcribe several windows of a recording at once.
        format: Of the shards.
        writes: Names of writers.
    """

    folder: Path
    model: str
    backend: str = "auto"
    device: str = "auto"
    compute_type: str = "default"
    loading: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    batched: bool = False
    format: str = "parquet"
    writes: tuple[str, ...] = ()

    @property
    def shards(self) -> Shards:
        return Shards(self.folder / "shards", self.format)


@dataclass(frozen=True)
class Done:
    """What became of a shard.

    Attributes:
        rows: That were transcribed now.
        errors: How many of them failed.
        seconds: Of audio in the others.
        memory: Bytes that the actor's process has in memory.
    """

    rows: int
    errors: int
    seconds: float
    memory: int


class Transcriber:
    """A model with its job; several threads may transcribe shards at the same time."""

    def __init__(self, job: Job, run: str) -> None:
        """Loads nothing yet.

        Args:
            job: What to do.
            run: A name for this run, the same for all actors.
        """
        self.job = job
        self.run = run
        self._room = threading.Semaphore()

    def load(self) -> int:
        """Load the model and try it on a second of silence; how many recordings keep it busy.

        Raises:
            BadModel: It cannot be loaded, or does not take the options.
        """
        job = self.job
        return_large_blocks()
        try:
            loaded: Any = load_model(
                job.model, job.backend, job.device, job.compute_type, **job.loading
            )
        except Exception as error:  # a plugin's backend may raise anything
            raise BadModel(f"The model '{job.model}' cannot be loaded: {error}") from error
        reference = isinstance(loaded, faster_whisper.WhisperModel)
        self.backend = job.backend
        if job.backend == "auto":
            self.backend = "max" if isinstance(loaded, WhisperModel) else "ctranslate2"
        self.compute_type = loaded.model.compute_type if reference else job.compute_type
        # Nothing says of other models that they may be asked by several threads.
        self.in_flight = default_in_flight(loaded) if reference else 1
        self.model = loaded
        if job.batched:
            if not reference:
                raise BadModel(f"The backend '{job.backend}' has no batches: leave out --batched")
            self.model = BatchedInferencePipeline(model=loaded)
        if "guards" in job.options and not isinstance(loaded, WhisperModel):
            raise BadModel(f"The backend '{job.backend}' has no guards: leave out --guards")
        try:
            inspect.signature(self.model.transcribe).bind(None, **job.options)
            segments, _ = self.model.transcribe(np.zeros(_RATE, np.float32), **job.options)
            list(segments)
        except Exception as error:
            raise BadModel(f"The model '{job.model}' cannot be used so: {error}") from error
        self._room = threading.Semaphore(self.in_flight)
        return self.in_flight

    def transcribe(self, shard: Shard, again: bool, alone: bool) -> Done:
        """Transcribe a shard and write it.

        Args:
            shard: Which; if it is written already, there is nothing to do.
            again: Transcribe again what failed in a shard that is written.
            alone: One recording after another, because a process died at this shard.

        Raises:
            CannotWrite: The corpus cannot be written.
        """
        shards = self.job.shards
        kept: dict[str, dict[str, Any]] = {}
        if shards.has(shard.name):
            if not again:
                return Done(0, 0, 0.0, memory("VmRSS"))
            kept = {row["key"]: row for row in shards.read(shard.name) if row["error"] is None}
        rows = [row for row in shard.rows if row.key not in kept]
        attempts = Attempts(self.job.folder / "attempts" / shard.name, self.run)
        longest = max((row.duration or 0 for row in rows), default=0)
        in_flight = 1 if alone else self.in_flight
        if longest:
            in_flight = min(in_flight, max(1, int(MOST_SECONDS // longest)))
        found = dict(self._transcribed(rows, attempts, in_flight))
        ordered = [kept.get(row.key) or found[row.key] for row in shard.rows]
        for name in self.job.writes:
            try:
                writers()[name].write(ordered, shard.name, self.job.folder / name)
            except OSError as error:
                raise CannotWrite(error.errno, error.strerror, str(self.job.folder)) from error
        shards.write(shard.name, ordered)
        attempts.forget()
        errors = sum(row["error"] is not None for row in found.values())
        seconds = sum(row["duration"] for row in found.values() if row["error"] is None)
        return Done(len(found), errors, seconds, memory("VmRSS"))

    def _transcribed(
        self, rows: list[Row], attempts: Attempts, in_flight: int
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """What is kept of each row, by its key."""
        for row in rows:
            if row.key in attempts.deadly:
                problem = f"the process that transcribed it died {MOST_DEATHS} times"
                yield row.key, self._failed(row, problem)
        rows = [row for row in rows if row.key not in attempts.deadly]
        failed: list[tuple[int, Exception]] = []
        timed = _Timed(self.model, attempts, self._room)
        results = transcribe_many(
            timed,  # it has the method that is called
            rows,
            keys=[row.key for row in rows],
            in_flight=in_flight,
            on_error=lambda index, error: failed.append((index, error)),
            **self.job.options,
        )
        for index, segments, info in results:
            row = rows[index]
            yield row.key, self._transcript(row, segments, info, timed.seconds[row.key])
        for index, error in failed:
            if isinstance(error, CannotWrite):
                raise error
            yield rows[index].key, self._failed(rows[index], f"{type(error).__name__}: {error}")

    def _transcript(
        self, row: Row, segments: list[Segment], info: TranscriptionInfo, seconds: float
    ) -> dict[str, Any]:
        return {
            **self._described(row),
            "duration": info.duration,
            "language": info.language,
            "language_probability": float(info.language_probability),
            "text": "".join(segment.text for segment in segments),
            "segments": [dataclasses.asdict(segment) for segment in segments],
            "seconds": seconds,
        }

    def _failed(self, row: Row, problem: str) -> dict[str, Any]:
        place = f" ({row.place})" if row.place else ""
        return {**self._described(row), "error": f"{row.source}{place}: {problem}"}

    def _described(self, row: Row) -> dict[str, Any]:
        return {
            **dict.fromkeys(SCHEMA.names),
            "key": row.key,
            "source": row.source,
            "offset": row.offset,
            "duration": row.duration,
            "model": self.job.model,
            "backend": self.backend,
            "compute_type": self.compute_type,
            "version": __version__,
        }


class _Timed:
    """A model that transcribes rows, takes the time and notes what it is at."""

    def __init__(self, model: Any, attempts: Attempts, room: threading.Semaphore) -> None:
        """
        Args:
            model: With the method `transcribe`.
            attempts: Of the shard.
            room: For as many recordings as may be in memory, of all shards.
        """
        self.model = model
        self.seconds: dict[str, float] = {}
        self._attempts = attempts
        self._room = room
        self._readers: dict[str, Reader] = readers()

    def transcribe(self, row: Row, **options: Any) -> tuple[list[Segment], TranscriptionInfo]:
        with self._room:
            begun = time.perf_counter()
            self._attempts.begin(row.key)
            try:
                with self._audio(row) as audio:
                    segments, info = self.model.transcribe(audio, **options)
                    segments = list(segments)
            finally:
                self._attempts.end(row.key)
            self.seconds[row.key] = time.perf_counter() - begun
        return segments, info

    @contextlib.contextmanager
    def _audio(self, row: Row) -> Iterator[Any]:
        """What `transcribe` takes."""
        audio = self._readers[row.reader].audio(row)
        with audio if hasattr(audio, "close") else contextlib.nullcontext():
            if row.offset is None:
                yield audio
            else:
                yield decode_part(audio, _RATE, row.offset, row.duration or 0)


def on_cores(backend: str, cores: int, recordings: int) -> dict[str, int]:
    """How a model uses the cores of an actor, as arguments of `load_model`.

    Two recordings share them: threads that work at the same one wait for each other at every
    step, and for Python. With a single recording for each actor, it has all of them.

    Args:
        backend: As for `load_model`.
        cores: Of the actor.
        recordings: For each actor.
    """
    if backend in _SEVERAL_AT_ONCE and cores > 1 and recordings > 1:
        return {"cpu_threads": cores // 2, "num_workers": 2}
    return {"cpu_threads": cores}


def memory(figure: str) -> int:
    """Bytes of this process, now ("VmRSS") or at most so far ("VmHWM"); 0 where nothing tells."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith(f"{figure}:")).split()[1])
    return 0
