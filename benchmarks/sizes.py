"""``python -m benchmarks sizes``: models of the sizes that people run, beside stock faster-whisper.

Their weights are random, each tensor's its own. Every measurement is a process of its own; the
sides take turns. The record's ``sizes`` are rows of `Run`.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import click
import numpy as np
from ctranslate2.specs import model_spec, whisper_spec
from rich.console import Console
from rich.table import Table

from benchmarks.record import ROOT, begin, results_option
from compat_tests.support.models import model_directory
from whisper_max_backend.engine.checkpoint.dimensions import PUBLISHED, Dimensions, expected_shapes

_VOCABULARY = 51865  # base's, whose tokens all of them get


SIZES = {
    name: replace(PUBLISHED[published], n_vocab=_VOCABULARY)
    for name, published in (
        *((name, name) for name in ("tiny", "base", "small", "medium")),
        ("turbo", "large-v3-turbo"),
        ("large-v3", "large-v3"),
    )
}
SIDES = ("first load", "again", "stock")
"""Ours without packed weights in the cache, ours with them, and stock faster-whisper."""
GOALS = {"small": {"encode": 5.0, "step": 6.0}, "turbo": {"encode": 3.5, "step": 6.0}}
"""How many times as fast as stock, in int8."""
TURBO_LOAD_SECONDS = 1.0
TURBO_PEAK = 0.65
"""Of stock's memory."""


@dataclass(frozen=True)
class Run:
    """Medians of one side.

    Attributes:
        size: Of the model.
        side: One of `SIDES`.
        threads: As given to the model; stock's are those with which it encodes fastest.
        load_seconds: The model's file is in the system's cache.
        encode_seconds: Of a window of 30 s.
        step_seconds: Of a decoder step of 5 beams.
        peak_bytes: Resident in the process, at most.
    """

    size: str
    side: str
    threads: int
    load_seconds: float
    encode_seconds: float
    step_seconds: float
    peak_bytes: float


def make(folder: Path, dimensions: Dimensions) -> None:
    """A model in CTranslate2's format, its matrices in float16."""
    base = model_directory("base")
    random = np.random.default_rng(0)
    spec = whisper_spec.WhisperSpec(
        *(dimensions.n_audio_layer, dimensions.n_audio_head),
        *(dimensions.n_text_layer, dimensions.n_text_head),
    )
    for name, shape in expected_shapes(dimensions).items():
        values = random.standard_normal(shape, np.float32)
        values *= 0.1 if len(shape) == 1 else np.prod(shape[1:]) ** -0.5
        if name.endswith("/gamma"):
            values += 1
        scope, attribute = name.rsplit("/", 1)
        half = values.astype(np.float16 if name.endswith("/weight") else np.float32)
        setattr(model_spec.index_spec(spec, scope), attribute, half)
        if name == "decoder/embeddings/weight":
            spec.decoder.projection.weight = half
    spec.register_vocabulary(json.loads((base / "vocabulary.json").read_text()))
    spec.validate()
    spec.optimize("float16")
    spec.save(str(folder))
    shutil.copy(base / "tokenizer.json", folder)
    config = json.loads((base / "config.json").read_text())
    del config["alignment_heads"]  # of base's layers
    (folder / "config.json").write_text(json.dumps(config))
    mels = {"feature_size": dimensions.n_mels}
    (folder / "preprocessor_config.json").write_text(json.dumps(mels))


def measured(folder: Path, side: str, threads: int, compute_type: str) -> dict[str, float]:
    """One process of one side."""
    module = "faster_whisper" if side == "stock" else "whisper_max_backend"
    variables = {"WHISPER_MAX_WEIGHTS_GB": "0"} if side == "first load" else {}
    command = [sys.executable, "-m", "benchmarks.scripts.time_size"]
    result = subprocess.run(
        [*command, module, str(folder), compute_type, str(threads)],
        cwd=ROOT,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        check=True,
    )
    found: dict[str, float] = json.loads(result.stdout)
    return found


def runs_of(size: str, folder: Path, compute_type: str, rounds: int) -> list[Run]:
    """All sides in turns, after one round that is not counted."""
    cores = len(os.sched_getaffinity(0))
    found: dict[tuple[str, int], list[dict[str, float]]] = {}
    for _ in range(1 + rounds):
        for side in SIDES:
            for threads in {cores, max(1, cores // 2)} if side == "stock" else {cores}:
                one = measured(folder, side, threads, compute_type)
                found.setdefault((side, threads), []).append(one)
    medians = {key: _medians(several[1:]) for key, several in found.items()}
    return [
        Run(size, side, threads, **medians[side, threads])
        for side in SIDES
        for threads in [
            min(
                (count for each, count in medians if each == side),
                key=lambda count: medians[side, count]["encode_seconds"],
            )
        ]
    ]


def _medians(several: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: statistics.median(one[name] for one in several) for name in several[0]}


def broken(runs: Iterable[Run]) -> list[str]:
    """Which promises do not hold, in words."""
    found = []
    sides = {(run.size, run.side): run for run in runs}
    for size, goals in GOALS.items():
        ours, stock = sides.get((size, "again")), sides.get((size, "stock"))
        if ours is None or stock is None:
            continue
        for what, goal in goals.items():
            ratio = getattr(stock, f"{what}_seconds") / getattr(ours, f"{what}_seconds")
            if ratio < goal:
                found.append(f"{size}: {what} is {ratio:.1f} times as fast as stock, not {goal}")
    ours, stock = sides.get(("turbo", "again")), sides.get(("turbo", "stock"))
    if ours is not None and stock is not None:
        first = sides["turbo", "first load"]
        if ours.load_seconds > TURBO_LOAD_SECONDS:
            found.append(f"turbo: a second load takes {ours.load_seconds:.2f} s")
        if first.load_seconds > stock.load_seconds:
            found.append(
                f"turbo: a first load takes {first.load_seconds:.1f} s, stock's "
                f"{stock.load_seconds:.1f}"
            )
        if ours.peak_bytes > TURBO_PEAK * stock.peak_bytes:
            found.append(f"turbo: {ours.peak_bytes / stock.peak_bytes:.2f} of stock's memory")
    return found


def table(runs: Sequence[Run]) -> Table:
    """The figures."""
    result = Table(title="a load, a window, a step of 5 beams")
    for heading in ("size", "side", "threads", "load", "encode", "step", "peak"):
        result.add_column(heading, justify="left" if heading in ("size", "side") else "right")
    for run in runs:
        result.add_row(
            *(run.size, run.side, str(run.threads)),
            f"{run.load_seconds:.2f} s",
            f"{run.encode_seconds:.3f} s",
            f"{1000 * run.step_seconds:.2f} ms",
            f"{run.peak_bytes / 1e9:.2f} GB",
        )
    return result


@click.command()
@click.option(
    "--size",
    "sizes",
    multiple=True,
    type=click.Choice(list(SIZES)),
    default=("small", "turbo"),
    show_default=True,
)
@click.option("--compute-type", default="int8", show_default=True)
@click.option("--rounds", default=5, show_default=True, help="Processes of each side.")
@results_option
def main(sizes: tuple[str, ...], compute_type: str, rounds: int, results: Path) -> None:
    """Time loads, windows and steps of large models. 1 if a goal is missed."""
    record = begin("sizes", compute_type)
    runs: list[Run] = []
    for size in sizes:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            make(folder, SIZES[size])
            runs += runs_of(size, folder, compute_type, rounds)
        record.found["sizes"] = [asdict(run) for run in runs]
        record.keep(results)
    console = Console()
    console.width = max(console.width, 100)
    console.print(table(runs))
    record.found["broken"] = broken(runs)
    record.finish(results)


if __name__ == "__main__":
    main()
