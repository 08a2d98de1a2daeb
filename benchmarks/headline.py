"""``python -m benchmarks headline RECORD``: draws the picture of the README (SVG)."""

from __future__ import annotations

from pathlib import Path

import click
import matplotlib.pyplot as plt

from benchmarks.plot import OTHER, OURS, STYLE, TEXT
from benchmarks.record import ROOT, Record, read

PICTURE = ROOT / "docs" / "speed.svg"
CASES = {
    "base, beam 5": "test_transcribe[base-int8-ten-5]",
    "base, beam 1": "test_transcribe[base-int8-ten-1]",
    "base, batched": "test_batched[base-int8-ten]",
    "tiny.en, beam 5": "test_transcribe[tiny.en-int8-ten-5]",
}
"""What is shown, all of one recording: label and the benchmark's name."""
_BAR = 0.38


def draw(record: Record, path: Path) -> None:
    """Draw the seconds that both sides take, a pair of bars for each case.

    Args:
        record: Of `python -m benchmarks cpu`.
        path: Of the SVG file.

    Raises:
        KeyError: The run has not measured one of the cases.
    """
    measured = {row["name"]: row for row in record.found["benchmarks"]}
    rows = [measured[name] for name in CASES.values()]
    sides = (
        ("faster-whisper", OTHER, [row["reference_s"] for row in rows]),
        ("whisper-max-backend", OURS, [row["ours_s"] for row in rows]),
    )
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(8, 2.6), layout="constrained")
        for index, (side, colour, seconds) in enumerate(sides):
            places = [row + (index - 0.5) * _BAR for row in range(len(rows))]
            drawn = axis.barh(places, seconds, _BAR * 0.92, color=colour, label=side)
            notes = [f"{value:.2f} s" for value in seconds]
            if index:
                notes = [
                    f"{note}, {row['ratio']:.1f} times as fast"
                    for note, row in zip(notes, rows, strict=True)
                ]
            axis.bar_label(drawn, notes, padding=4, color=TEXT)
        axis.set_yticks(range(len(rows)), list(CASES))
        axis.invert_yaxis()
        axis.margins(x=0.12)
        axis.tick_params(length=0)
        axis.set_xticks([])
        axis.spines[:].set_visible(False)
        axis.legend(loc="lower right", frameon=False)
        figure.savefig(path, transparent=True, metadata={"Date": None})
        plt.close(figure)


@click.command()
@click.argument("record", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def main(record: Path) -> None:
    """Draw RECORD, of a whole run of `cpu`, into docs/speed.svg."""
    try:
        draw(read(record), PICTURE)
    except KeyError as error:
        raise click.ClickException(f"{record} has no {error}: choose a whole run") from error
    print(f"drawn in {PICTURE}")
