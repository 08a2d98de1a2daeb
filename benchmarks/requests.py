"""``python -m benchmarks requests``: the short requests of a voice assistant, beside stock.

A request is 2 to 5 s of speech, beginning anywhere. Every request is transcribed by all sides in
turn. The record's ``requests`` are rows of `Latency`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import faster_whisper
import numpy as np
from rich.console import Console
from rich.table import Table

import whisper_max_backend
from benchmarks.machine import cores
from benchmarks.models import model_path
from benchmarks.peers.faster_whisper import heard
from benchmarks.record import begin, results_option
from benchmarks.speech import RATE, speech
from benchmarks.timing import PAUSE

SHORTEST, LONGEST = 2.0, 5.0
"""Seconds of a request."""
GOAL = 6.5
"""How many times as fast as stock, in the middle and in the tail."""
OURS = 0
"""In the place of a stock model's threads."""


@dataclass(frozen=True)
class Latency:
    """What requests took.

    Attributes:
        beams: Of the search.
        threads: Of stock faster-whisper, as many as serve its median best.
        ours_p50, ours_p95, stock_p50, stock_p95: Seconds.
        ratio_p50, ratio_p95: Stock's over ours.
        same_text: Requests with the same text on both sides.
    """

    beams: int
    threads: int
    ours_p50: float
    ours_p95: float
    stock_p50: float
    stock_p95: float
    ratio_p50: float
    ratio_p95: float
    same_text: int


def cut(count: int, seed: int) -> list[np.ndarray]:
    """Requests, float32 [samples] at 16 kHz, out of two minutes of reading."""
    chance = random.Random(seed)
    whole = speech("two_minutes")
    found = []
    for _ in range(count):
        length = int(RATE * chance.uniform(SHORTEST, LONGEST))
        start = chance.randrange(len(whole) - length)
        found.append(whole[start : start + length])
    return found


def measured(
    models: dict[int, whisper_max_backend.WhisperModel | faster_whisper.WhisperModel],
    requests: Sequence[np.ndarray],
    beams: int,
) -> Latency:
    """All requests by all sides; `models` are stock's by their threads, and `OURS`."""
    seconds: dict[int, list[float]] = {side: [] for side in models}
    texts: dict[int, list[str]] = {side: [] for side in models}
    for side in models:
        heard(models[side], requests[0], beams)
    for audio in requests:
        for side, model in models.items():
            time.sleep(PAUSE)
            begun = time.perf_counter()
            texts[side].append(heard(model, audio, beams))
            seconds[side].append(time.perf_counter() - begun)
    middle = {side: float(np.percentile(found, 50)) for side, found in seconds.items()}
    tail = {side: float(np.percentile(found, 95)) for side, found in seconds.items()}
    threads = min((side for side in models if side != OURS), key=lambda side: middle[side])
    return Latency(
        beams=beams,
        threads=threads,
        ours_p50=middle[OURS],
        ours_p95=tail[OURS],
        stock_p50=middle[threads],
        stock_p95=tail[threads],
        ratio_p50=middle[threads] / middle[OURS],
        ratio_p95=tail[threads] / tail[OURS],
        same_text=sum(a == b for a, b in zip(texts[OURS], texts[threads], strict=True)),
    )


def table(rows: Sequence[Latency], title: str) -> Table:
    """The figures."""
    result = Table(title=title)
    for heading in ("beam", "", "ours", "stock", "ratio"):
        result.add_column(heading, justify="right" if heading else "left")
    for row in rows:
        for what, ours, stock, ratio in (
            ("p50", row.ours_p50, row.stock_p50, row.ratio_p50),
            ("p95", row.ours_p95, row.stock_p95, row.ratio_p95),
        ):
            figures = (f"{1000 * ours:.0f} ms", f"{1000 * stock:.0f} ms", f"{ratio:.1f}")
            result.add_row(str(row.beams), what, *figures)
    return result


@click.command()
@click.option("--requests", "count", default=200, show_default=True)
@click.option("--model", "name", default="base", show_default=True, help="Of the tests, or a path.")
@click.option("--compute-type", default="int8", show_default=True)
@click.option("--beam", "beams", multiple=True, default=(1, 5), show_default=True)
@click.option("--seed", default=0, show_default=True, help="Of the requests.")
@results_option
def main(
    count: int,
    name: str,
    compute_type: str,
    beams: tuple[int, ...],
    seed: int,
    results: Path,
) -> None:
    """Time requests of 2 to 5 s beside stock faster-whisper. 1 if a goal is missed."""
    path = model_path(name)
    options: dict[str, Any] = {"device": "cpu", "compute_type": compute_type}
    models = {OURS: whisper_max_backend.WhisperModel(path, **options)} | {
        threads: faster_whisper.WhisperModel(path, cpu_threads=threads, **options)
        for threads in {1, cores()}
    }
    record = begin("requests", f"{Path(name).name} {compute_type}")
    requests = cut(count, seed)
    rows: list[Latency] = []
    for beam in beams:
        rows.append(measured(models, requests, beam))
        record.found["requests"] = [asdict(row) for row in rows]
        record.keep(results)
    console = Console()
    console.print(table(rows, f"{count} requests of 2 to 5 s, {name}, {compute_type}"))
    record.found["broken"] = [
        f"beam {row.beams}: {what} is {ratio:.1f} times as fast as stock, not {GOAL}"
        for row in rows
        for what, ratio in (("p50", row.ratio_p50), ("p95", row.ratio_p95))
        if ratio < GOAL
    ]
    record.finish(results)


if __name__ == "__main__":
    main()
