"""A comparison as tables and lines in a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from .measure import MeasuredSide, Recording, Transcription

MOST_DIFFERENCES = 20
"""Shown of one text; the JSON and the HTML have them all."""


def render(recordings: Sequence[Recording], sides: Sequence[MeasuredSide]) -> RenderableType:
    """A table for each recording, and the words that differ below it."""
    parts: list[RenderableType] = []
    for number, recording in enumerate(recordings):
        results = [side.transcriptions[number] for side in sides]
        parts.append(_table(recording, sides, results))
        for side, result in zip(sides, results, strict=True):
            if result.problem:
                parts.append(Text(f"{side.choice.label}: {result.problem}", style="red"))
            else:
                parts += _differences(side.choice.label, result)
        parts.append(Text())
    return Group(*parts)


def _table(
    recording: Recording, sides: Sequence[MeasuredSide], results: Sequence[Transcription]
) -> Table:
    table = Table(title=f"{escape(recording.name)}, {recording.duration:.1f} s", title_style="bold")
    table.add_column("backend", no_wrap=True)
    against = "transcript" if recording.transcript is not None else "text"
    for name in ("seconds", "first text", "RTF", "speed-up", "start-up", "peak MB", "CPU", "GPU"):
        table.add_column(name, justify="right")
    table.add_column(f"WER ({against})", justify="right")
    for side, result in zip(sides, results, strict=True):
        table.add_row(side.choice.label, *figures(recording, side, result))
    return table


def figures(recording: Recording, side: MeasuredSide, result: Transcription) -> list[str]:
    """What a row says, as people read it; empty where there is nothing to say."""
    first = min(result.first_text, default=None)
    return [
        _number(result.median, "{:.2f}"),
        _number(first, "{:.2f}"),
        _number(result.median, "{:.4f}", 1 / recording.duration),
        _number(result.speed_up, "{:.2f} x"),
        _number(side.start_seconds, "{:.2f} s"),
        _number(result.peak_memory, "{:.0f}", 1e-6),
        _number(result.cpu, "{:.0%}"),
        _number(result.gpu, "{:.0%}"),
        _number(result.words.error_rate if result.words else None, "{:.1%}"),
    ]


def _number(value: float | None, form: str, scale: float = 1.0) -> str:
    return "" if value is None else form.format(value * scale)


def _differences(label: str, result: Transcription) -> list[RenderableType]:
    spans = [span for span in result.words.spans if span.differs] if result.words else []
    lines: list[RenderableType] = []
    for span in spans[:MOST_DIFFERENCES]:
        line = Text(f"{label}: ")
        line.append(span.reference or "(nothing)", style="red")
        line.append(" → ")
        line.append(span.hypothesis or "(nothing)", style="green")
        lines.append(line)
    if len(spans) > MOST_DIFFERENCES:
        lines.append(Text(f"{label}: and {len(spans) - MOST_DIFFERENCES} more differences"))
    return lines
