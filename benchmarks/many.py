"""``python -m benchmarks many``: recordings by `transcribe_many`, and one after another.

The record's ``many`` has ``one_by_one_s`` and ``together_s``, the seconds of each round; ``ratio``,
that of their medians; and ``different``, how many recordings had other tokens.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import click

from benchmarks.models import model_path
from benchmarks.record import begin, results_option
from benchmarks.timing import once
from compat_tests.support.recordings import load
from whisper_max_backend import WhisperModel

_NAMES = ("jfk", "command", "austen", "beckett")
"""Recordings of the tests, most of them of one window."""


@click.command()
@click.option("--recordings", default=64, show_default=True)
@click.option("--model", "name", default="base", show_default=True, help="Of the tests, or a path.")
@click.option("--device", default="cpu", type=click.Choice(["cpu", "cuda"]), show_default=True)
@click.option("--compute-type", default="float32", show_default=True)
@click.option("--workers", default=1, show_default=True)
@click.option("--threads", default=0, help="Of a worker; 0: all cores.")
@click.option("--in-flight", type=int, help="How many at once; the method's own if not given.")
@click.option("--rounds", default=5, show_default=True)
@results_option
def main(
    recordings: int,
    name: str,
    device: str,
    compute_type: str,
    workers: int,
    threads: int,
    in_flight: int | None,
    rounds: int,
    results: Path,
) -> None:
    """Transcribe many recordings, both ways in turns. 1 if tokens differ."""
    path = model_path(name)
    model = WhisperModel(
        path,
        device=device,
        compute_type=compute_type,
        cpu_threads=threads,
        num_workers=workers,
    )
    audios = [load(_NAMES[index % len(_NAMES)]) for index in range(recordings)]
    options: dict[str, Any] = {"language": "en", "temperature": 0.0}
    expected: dict[int, list[list[int]]] = {}
    found: dict[int, list[list[int]]] = {}

    def one_by_one() -> None:
        for index, audio in enumerate(audios):
            segments, _ = model.transcribe(audio, **options)
            expected[index] = [segment.tokens for segment in segments]

    def together() -> None:
        for index, segments, _ in model.transcribe_many(audios, in_flight=in_flight, **options):
            found[index] = [segment.tokens for segment in segments]

    record = begin("many", f"{name} {device} {compute_type}")
    one_by_one()
    together()
    alone, many = [], []
    for _ in range(rounds):
        alone.append(once(one_by_one))
        many.append(once(together))
    different = sum(found[index] != expected[index] for index in expected)
    ratio = statistics.median(alone) / statistics.median(many)
    record.found["many"] = {
        "recordings": recordings,
        "seconds_of_audio": sum(map(len, audios)) / 16_000,
        "workers": workers,
        "in_flight": in_flight,
        "one_by_one_s": alone,
        "together_s": many,
        "ratio": ratio,
        "different": different,
    }
    print(f"{recordings} recordings: {ratio:.2f} times as fast together, {different} different")
    record.found["broken"] = [f"{different} recordings have other tokens"] if different else []
    record.finish(results)


if __name__ == "__main__":
    main()
