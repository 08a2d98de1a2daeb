"""``python -m benchmarks long``: hours of audio, each length in a process of its own.

The record's ``long`` are rows of `Run`, all of the one ``side``.
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import av
import click
import numpy as np
from rich.console import Console
from rich.table import Table

import whisper_max_backend
from benchmarks.peers import Model
from benchmarks.peers.faster_whisper import FasterWhisper
from benchmarks.record import begin, results_option
from benchmarks.speech import RATE
from compat_tests.support.models import model_directory
from compat_tests.support.recordings import load
from whisper_max_backend.comparison.meters import Meter

WAYS = ("transcribe", "batched")
_PARTS = ("austen", "jfk", "two_minutes", "beckett")
"""What is said over and over: most of it is real speech."""
_BATCH = 8
_WARM_UP_MINUTES = 5
_LINEAR = 1.15
"""A minute of the longest audio takes at most so many times a minute of the shortest."""
_FLAT_BYTES = 48 << 20
"""The second half of a transcription has at most so much more resident than the first."""
_SERIES = 60
_LAST_SECONDS = 5


@dataclass(frozen=True)
class Run:
    """One transcription.

    Attributes:
        way: ``transcribe`` or ``batched``.
        minutes: Of audio.
        seconds: What it took.
        loaded_bytes: Resident before it, model and samples included.
        peak_bytes: The most while it ran.
        growth_bytes: What the peak of its second half is above that of the first.
        memory: Pairs of seconds and resident bytes, some dozens of them.
        segments: How many there were.
    """

    way: str
    minutes: float
    seconds: float
    loaded_bytes: int
    peak_bytes: int
    growth_bytes: int
    memory: list[tuple[float, int]]
    segments: int

    @property
    def seconds_per_minute(self) -> float:
        """Of audio."""
        return self.seconds / self.minutes


def long_speech(minutes: float) -> np.ndarray:
    """Float32 ``[samples]``, sentences of several speakers over and over."""
    parts = [np.pad(load(name), (0, RATE)) for name in _PARTS]
    return np.resize(np.concatenate(parts), int(60 * minutes * RATE))


def write_flac(path: Path, samples: np.ndarray) -> None:
    """Float32 ``[samples]`` as a file of 16 bits."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("flac", rate=RATE, layout="mono")
        for part in np.array_split(samples, max(1, len(samples) // RATE)):
            integers = np.round(part * 32767).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(integers[None], "s16", "mono")
            frame.sample_rate = RATE
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))


def measure(
    side: FasterWhisper, model: Model, way: str, minutes: float, file: Path | None = None
) -> Run:
    """Transcribe in a new process and watch it.

    Args:
        side: Who transcribes.
        model: With what.
        way: One of `WAYS`.
        minutes: Of `long_speech`.
        file: Has it, if it is to be decoded as well.

    Raises:
        RuntimeError: The process has ended early.
    """
    context = multiprocessing.get_context("spawn")
    connection, theirs = context.Pipe()
    args = (theirs, side, model, way, minutes, file)
    process = context.Process(target=_serve, args=args, daemon=True)
    process.start()
    theirs.close()
    assert process.pid is not None
    try:
        connection.recv()  # it is ready
        with Meter(process.pid) as meter:
            started = time.perf_counter()
            connection.send(None)
            segments: int = connection.recv()
            seconds = time.perf_counter() - started
    except EOFError:
        raise RuntimeError("the process has ended; what it said is on standard error") from None
    finally:
        connection.close()  # which it takes for its end
        process.join(_LAST_SECONDS)
        process.kill()
        process.join()
    memory = [(one.seconds, one.memory) for one in meter.samples]
    halves = [
        max(memory_bytes for at, memory_bytes in memory if (at > seconds / 2) == late)
        for late in (False, True)
    ]
    return Run(
        way,
        minutes,
        seconds,
        memory[0][1],
        max(halves),
        halves[1] - halves[0],
        memory[:: max(1, len(memory) // _SERIES)],
        segments,
    )


def _serve(
    connection: Connection,
    side: FasterWhisper,
    model: Model,
    way: str,
    minutes: float,
    file: Path | None,
) -> None:
    loaded: Any = side.open(model)
    options: dict[str, Any] = {"language": "en", "temperature": 0.0}
    if way == "batched":
        loaded = sys.modules[side.module].BatchedInferencePipeline(loaded)
        options["batch_size"] = _BATCH
    else:
        options["condition_on_previous_text"] = False
    # Buffers that a first use makes, for whole batches too.
    list(loaded.transcribe(long_speech(_WARM_UP_MINUTES), **options)[0])
    audio = str(file) if file else long_speech(minutes)
    connection.send(None)
    connection.recv()
    segments, _ = loaded.transcribe(audio, **options)
    connection.send(sum(1 for _ in segments))
    with suppress(EOFError):
        connection.recv()  # stays as it is until it has been looked at


def broken(runs: Sequence[Run]) -> list[str]:
    """Which promises do not hold, in words."""
    found = []
    for way in WAYS:
        by_length = sorted((run for run in runs if run.way == way), key=lambda run: run.minutes)
        if not by_length:
            continue
        first, last = by_length[0], by_length[-1]
        ratio = last.seconds_per_minute / first.seconds_per_minute
        if ratio > _LINEAR:
            found.append(
                f"{way}: a minute of {last.minutes:.0f} takes {ratio:.2f} times one of "
                f"{first.minutes:.0f}"
            )
        found += [
            f"{way}: memory grows by {run.growth_bytes >> 20} MB over {run.minutes:.0f} minutes"
            for run in by_length
            if run.growth_bytes > _FLAT_BYTES
        ]
    return found


def table(runs: Sequence[Run]) -> Table:
    """What each length took."""
    result = Table()
    for column in ("", "minutes", "time", "s a minute", "loaded, MB", "peak, MB", "growth, MB"):
        result.add_column(column, justify="right")
    for run in runs:
        sizes = (run.loaded_bytes, run.peak_bytes, run.growth_bytes)
        result.add_row(
            run.way,
            f"{run.minutes:g}",
            f"{run.seconds:.1f} s",
            f"{run.seconds_per_minute:.2f}",
            *(f"{size / 1e6:.0f}" for size in sizes),
        )
    return result


@click.command()
@click.option("--hours", multiple=True, type=float, help="Lengths [default: 10 minutes, 1 h, 3 h].")
@click.option("--way", "ways", multiple=True, type=click.Choice(WAYS), default=WAYS)
@click.option("--model", "name", default="base", show_default=True, help="base or tiny.en.")
@click.option("--compute-type", default="int8", show_default=True)
@click.option("--stock", is_flag=True, help="Stock faster-whisper instead of this package.")
@click.option("--file", "from_file", is_flag=True, help="From FLAC files instead of samples.")
@results_option
def main(
    hours: tuple[float, ...],
    ways: tuple[str, ...],
    name: str,
    compute_type: str,
    stock: bool,
    from_file: bool,
    results: Path,
) -> None:
    """Time for each minute and memory over time; 1 if the one grows or the other is not flat."""
    console = Console()
    module = "faster_whisper" if stock else whisper_max_backend.__name__
    side, model = FasterWhisper(module, compute_type), Model(name, model_directory(name))
    flags = {"stock": stock, "file": from_file}
    variant = " ".join([name, *ways, *(flag for flag, given in flags.items() if given)])
    record = begin("long", variant, model=name, side=side.name)
    runs: list[Run] = []
    for way in ways:
        for length in hours or (1 / 6, 1, 3):
            console.print(f"{side.name}, {way}: {60 * length:.0f} minutes of audio")
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder, "long.flac") if from_file else None
                if file:
                    write_flac(file, long_speech(60 * length))
                runs.append(measure(side, model, way, 60 * length, file))
            record.found |= {"long": [asdict(run) for run in runs], "broken": broken(runs)}
            record.keep(results)
    console.print(table(runs))
    record.finish(results)
