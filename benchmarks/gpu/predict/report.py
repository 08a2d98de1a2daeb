"""``python -m benchmarks gpu --predict``: times of a card that is not here.

The record has ``predicted``, a row for each case of `benchmarks.gpu.cases` under its name, with
what was ``measured`` where `benchmarks/results` has it, of the kernels that there were then, and
``launches``, a row for each launch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks.gpu.models import SIZES, device_step_bytes
from benchmarks.gpu.predict.cards import CARDS, Card
from benchmarks.gpu.predict.kernels import Kernel, NoTools, compiled_kernels
from benchmarks.gpu.predict.launches import HALF, Launch, encoder_launches, step_launches
from benchmarks.gpu.predict.model import Prediction, predicted
from benchmarks.operations import encoder_operations
from benchmarks.record import KEPT, begin, read

SAME_KERNELS = {"large-v3-turbo": "large-v3"}
"""Sizes whose layers are those of another."""
BEAMS = 5
BATCH = 20
"""Windows of ten minutes."""


def predict(names: Sequence[str], card: str, results: Path) -> None:
    """Predict encoder and decoder step of models.

    Raises:
        click.ClickException: The tools that read machine code are not installed.
    """
    record = begin("gpu", f"predicted {card}", card=card, predicted=[], launches=[])
    measured = _measured(card)
    compiled: dict[str, list[Kernel]] = {}
    for name in names:
        same = SAME_KERNELS.get(name, name)
        if same not in compiled:
            click.echo(f"the kernels of {same} are compiled, which takes minutes")
            try:
                compiled[same] = compiled_kernels(same)
            except NoTools as error:
                raise click.ClickException(str(error)) from error
        for case, launches, limit in _cases(name, CARDS[card]):
            found = predicted(launches, compiled[same], CARDS[card])
            row = _row(case, found, limit, measured.get(case))
            record.found["predicted"].append(row)
            record.found["launches"] += [_launch_row(case, one) for one in found]
            _tell(row, found)
    click.echo(f"kept in {record.keep(results)}")


def _cases(name: str, card: Card) -> Iterator[tuple[str, list[Launch], float]]:
    """Names as in `benchmarks.gpu.cases`, launches, and seconds of the hardware's limit."""
    d = SIZES[name]
    for windows in (1, 8):
        limit = windows * encoder_operations(d) / card.operations
        yield f"{name}, encoder, {windows} windows", encoder_launches(d, windows), limit
    limit = device_step_bytes(d, "bfloat16") / card.dram_bytes
    yield f"{name}, decoder step, beam {BEAMS}, replayed", step_launches(d, 1, BEAMS), limit
    cross_kv = 2 * d.n_text_layer * d.n_audio_ctx * d.n_text_state * HALF
    limit += (BATCH - 1) * cross_kv / card.dram_bytes
    yield f"{name}, decoder step, {BATCH} windows, greedy", step_launches(d, BATCH, 1), limit


def _measured(card: str) -> dict[str, float]:
    """Seconds by case, of the record that is in the repository; empty where there is none."""
    path = KEPT / f"gpu-nvidia-{card.lower()}.json"
    if not path.is_file():
        return {}
    return {row["case"]: row["seconds"] for row in read(path).found["cases"]}


def _row(
    case: str, found: Sequence[Prediction], limit: float, measured: float | None
) -> dict[str, Any]:
    seconds = sum(one.total for one in found)
    return {
        "case": case,
        "seconds": seconds,
        "limit": limit,
        "measured": measured,
        "error": seconds / measured - 1 if measured else None,
    }


def _launch_row(case: str, one: Prediction) -> dict[str, Any]:
    kernel = one.kernel
    return {
        "case": case,
        "launch": one.launch.label,
        "count": one.launch.count,
        "seconds": one.seconds,
        "limit": one.limit,
        "bound": one.bound,
        "blocks": one.launch.blocks,
        "threads": one.launch.threads,
        "resident": one.resident,
        "rounds": one.rounds,
        "busiest": one.busy[0],
        "busy": one.busy[1],
        "registers": kernel.registers if kernel else None,
        "shared": kernel.shared if kernel else None,
        "local": kernel.local if kernel else None,
        "loops": [kernel.program.loop(number) for number in range(len(kernel.program.ends))]
        if kernel
        else [],
    }


def _tell(row: dict[str, Any], found: Sequence[Prediction]) -> None:
    """A table of the launches, the longest first, and their sum."""
    click.echo(f"\n{row['case']}")
    click.echo("    count     each    limit    sum  registers resident rounds  busiest unit")
    for one in sorted(found, key=lambda each: -each.total):
        registers = one.kernel.registers if one.kernel else 0
        click.echo(
            f"    {one.launch.count:5} {1e6 * one.seconds:5.1f} us {1e6 * one.limit:5.1f} us"
            f" {1e3 * one.total:6.2f} ms {registers:6} {one.resident:8} {one.rounds:6}"
            f"  {one.busy[0] or one.bound} {one.busy[1]:4.0%}  {one.launch.label}"
        )
    told = f"    predicted {1e3 * row['seconds']:.2f} ms, limit {1e3 * row['limit']:.2f} ms"
    if row["measured"]:
        told += f", measured {1e3 * row['measured']:.2f} ms: {row['error']:+.0%}"
    click.echo(told)
