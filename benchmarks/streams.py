"""``python -m benchmarks streams``: how many live streams one model keeps up with.

Streams are played in real time, a chunk after another, each beginning at its own moment. A chunk
waits from when it was spoken until its update is there; where one is late, so are those after it.
The record's ``streams`` are rows of `Run`; ``limit`` is how many there would be if a chunk cost the
encoder of a window and ten steps alone.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.accuracy.errors import error_rate
from benchmarks.accuracy.transcripts import TRANSCRIPTS
from benchmarks.cpu.limits import shortest
from benchmarks.record import begin, results_option
from benchmarks.speech import RATE, speech
from compat_tests.support.models import model_directory
from whisper_max_backend import WhisperModel
from whisper_max_backend.live import LiveStreams

PROMISED = 6
"""Streams on two cores, with the `base` model in int8 and chunks of a second."""
SHARE = 0.8
"""Or so much of the limit, where that is less."""
_STEPS = 10


@dataclass(frozen=True)
class Run:
    """Some streams at once.

    Attributes:
        streams: How many.
        wait_median_seconds: Of a chunk.
        wait_p95_seconds: 19 of 20 chunks wait less.
        wait_worst_seconds: The longest.
        error_rate: Word errors for each word of the transcripts, of all streams.
        keeps_up: Whether 19 of 20 chunks waited for less than a chunk.
    """

    streams: int
    wait_median_seconds: float
    wait_p95_seconds: float
    wait_worst_seconds: float
    error_rate: float
    keeps_up: bool


def play(streams: LiveStreams, count: int, audio: np.ndarray, chunk: float, text: str) -> Run:
    """So many streams in real time."""
    length = int(chunk * RATE)
    pieces = [audio[start : start + length] for start in range(0, len(audio) - length, length)]
    waits: list[float] = []
    heard = [""] * count

    def run(number: int) -> None:
        stream = streams.open(language="en", min_chunk=chunk)
        begun = time.perf_counter() + chunk * number / count
        for index, piece in enumerate(pieces):
            spoken = begun + (index + 1) * chunk
            time.sleep(max(0.0, spoken - time.perf_counter()))
            stream.push(piece)
            update = stream.read()
            assert update is not None
            waits.append(time.perf_counter() - spoken)
            heard[number] += update.committed_text
        stream.push(audio[len(pieces) * length :])
        stream.finish()
        heard[number] += "".join(update.committed_text for update in stream)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    p95 = float(np.percentile(waits, 95))
    return Run(
        streams=count,
        wait_median_seconds=statistics.median(waits),
        wait_p95_seconds=p95,
        wait_worst_seconds=max(waits),
        error_rate=error_rate([text] * count, heard),
        keeps_up=p95 <= chunk,
    )


def limit(model: WhisperModel, audio: np.ndarray, chunk: float) -> float:
    """Streams, if a chunk cost the encoder of a window of 30 seconds and ten steps alone."""
    features = model.feature_extractor(audio[: 30 * RATE], padding=0)[None]
    encoded = model.model.encode(features)
    prompt = [["<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>"]]

    def steps(count: int) -> float:
        length = len(prompt[0]) + count
        return shortest(
            lambda: model.model.generate(encoded, prompt, beam_size=1, max_length=2 * length)
        )

    ten = steps(2 * _STEPS) - steps(_STEPS)
    return chunk / (shortest(lambda: model.model.encode(features)) + ten)


def table(runs: Sequence[Run], limit: float) -> Table:
    """The figures of all runs."""
    result = Table(title=f"{limit:.1f} streams if all of a chunk were the encoder and ten steps")
    for heading in ("streams", "wait", "95 %", "worst", "wrong", "keeps up"):
        result.add_column(heading, justify="right")
    for run in runs:
        result.add_row(
            f"{run.streams}",
            f"{run.wait_median_seconds:.2f} s",
            f"{run.wait_p95_seconds:.2f} s",
            f"{run.wait_worst_seconds:.2f} s",
            f"{run.error_rate:.2%}",
            "yes" if run.keeps_up else "no",
        )
    return result


@click.command()
@click.option("--model", "name", default="base", type=click.Choice(["tiny.en", "base"]))
@click.option("--compute-type", default="int8", show_default=True)
@click.option("--chunk", default=1.0, show_default=True, help="Seconds.")
@click.option("--streams", "counts", type=int, multiple=True, default=(1, 6, 12, 16, 20, 24, 32))
@results_option
def main(
    name: str, compute_type: str, chunk: float, counts: tuple[int, ...], results: Path
) -> None:
    """Play more and more live streams at once, until they wait too long. 1 if too few keep up."""
    model = WhisperModel(str(model_directory(name)), device="cpu", compute_type=compute_type)
    audio = np.concatenate([speech(each) for each in TRANSCRIPTS])
    text = " ".join(TRANSCRIPTS.values())
    record = begin("streams", f"{name} {compute_type}")
    most = limit(model, audio, chunk)
    record.found |= {"model": name, "compute_type": compute_type, "chunk": chunk, "limit": most}
    runs: list[Run] = []
    with LiveStreams(model) as streams:
        for count in counts:
            runs.append(play(streams, count, audio, chunk, text))
            record.found["streams"] = [asdict(run) for run in runs]
            record.keep(results)
            if not runs[-1].keeps_up:
                break
    Console().print(table(runs, most))
    kept_up = max((run.streams for run in runs if run.keeps_up), default=0)
    promised = min(PROMISED, SHARE * most)
    record.found["broken"] = (
        [] if kept_up >= promised else [f"{kept_up} streams keep up, {promised:.1f} are promised"]
    )
    record.finish(results)


if __name__ == "__main__":
    main()
