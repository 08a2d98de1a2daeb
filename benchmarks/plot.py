"""``python -m benchmarks plot RECORD``: a record of `cpu` or `peers` as a picture (SVG)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from benchmarks.record import Record, read

OURS, OTHER, TEXT = "#2f8f6b", "#8f96a3", "#7d828c"
"""Of a lightness that shows on white and on black."""
_ROW = 0.26
"""Inches that a bar takes, its gap included."""
_TITLES = 0.9
_WIDTH = 8.0

Bar = tuple[str, float, str, str]
"""Label, length, what is written at its end, colour."""


def plot(record: Record, path: Path) -> None:
    """Draw a record into an SVG file."""
    panels = [panel for panel in (_ratios(record), *_programs(record)) if panel[1]]
    heights = [_TITLES + _ROW * len(bars) for _, bars in panels]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            len(panels),
            figsize=(_WIDTH, sum(heights)),
            height_ratios=heights,
            squeeze=False,
            layout="constrained",
        )
        for axis, (title, bars) in zip(axes[:, 0], panels, strict=True):
            _draw(axis, title, bars)
        machine = record.machine
        figure.suptitle(
            f"{machine['processor']}, {machine['cores']} cores, {record.date[:10]}",
            color=TEXT,
        )
        figure.savefig(path, transparent=True)
        plt.close(figure)


STYLE: Any = {
    "font.size": 9,
    "text.color": TEXT,
    "xtick.color": TEXT,
    "ytick.color": TEXT,
    "axes.edgecolor": TEXT,
    "axes.titlecolor": TEXT,
    "svg.fonttype": "none",
    "svg.hashsalt": "whisper-max-backend",  # the same picture from the same record
}
"""Of every picture, for `matplotlib.pyplot.rc_context`."""


def _ratios(record: Record) -> tuple[str, list[Bar]]:
    """How much less of its time, or memory, this package needs than stock faster-whisper."""
    bars = [
        (
            f"{row['group']}: {_case(row)}",
            row["ratio"],
            f"{row['ratio']:.1f}",
            OURS if row["ratio"] >= 1 else OTHER,
        )
        for row in record.found.get("benchmarks", [])
        if "ratio" in row
    ]
    return "stock faster-whisper over this package (1: equal)", bars


def _programs(record: Record) -> list[tuple[str, list[Bar]]]:
    """The seconds of every program, a panel for each case."""
    panels = []
    for row in record.found.get("peers", []):
        programs = sorted(row["programs"], key=lambda program: program["seconds"])
        bars = [
            (
                program["name"],
                program["seconds"],
                f"{program['seconds']:.2f} s, {program['ratio']:.1f} x",
                OURS if program["name"].startswith("ours") else OTHER,
            )
            for program in programs
        ]
        panels.append((f"{row['recording']}, beam {row['beams']}", bars))
    return panels


def _case(row: dict[str, Any]) -> str:
    """A benchmark's parameters, without its test's name if they say enough."""
    name, _, parameters = row["name"].removeprefix("test_").partition("[")
    return parameters.removesuffix("]") or name


def _draw(axis: Axes, title: str, bars: Sequence[Bar]) -> None:
    labels, lengths, notes, colours = zip(*bars, strict=True)
    drawn = axis.barh(range(len(bars)), lengths, color=colours, height=0.7)
    axis.bar_label(drawn, notes, padding=3, color=TEXT)
    axis.set_yticks(range(len(bars)), labels)
    axis.invert_yaxis()
    axis.set_title(title, loc="left", fontsize=9)
    axis.margins(x=0.15, y=0.5 / len(bars))
    axis.tick_params(length=0)
    axis.set_xticks([])
    axis.spines[:].set_visible(False)


@click.command()
@click.argument("record", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def main(record: Path) -> None:
    """Draw RECORD, a file that `cpu` or `peers` has written, beside it."""
    picture = record.with_suffix(".svg")
    plot(read(record), picture)
    print(f"drawn in {picture}")
