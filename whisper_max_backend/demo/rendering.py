"""What the page shows of a comparison, as HTML; everything that comes from outside is escaped."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from jinja2 import Environment, PackageLoader

from ..comparison.words import compare_words
from .figures import Figures, figures_of
from .history import Record, to_csv, to_json
from .plots import colours
from .runs import Run, Side
from .speakers import Speaker

_templates = Environment(
    loader=PackageLoader("whisper_max_backend.demo"), autoescape=True, trim_blocks=True
)

_MEANINGS = {
    "RTF": "Real-time factor: seconds of work for a second of audio. Lower is better.",
    "speed-up": "How many times as fast as the first backend chosen.",
    "memory": "Peak resident memory of the backend's process.",
    "CPU": "Mean use of the processor, 100 % for each core at work.",
    "GPU": "Mean use of the GPU.",
    "differing": "Words that differ from the first backend's, for a hundred of its words.",
    "loading": "Loading the model and trying it once, before the clock starts.",
}


@dataclass(frozen=True)
class _Figure:
    name: str
    value: str
    meaning: str


@dataclass(frozen=True)
class _Piece:
    text: str
    kind: str = ""
    hint: str = ""


@dataclass(frozen=True)
class _Side:
    label: str
    state: str
    progress: str
    colour: str
    figures: list[_Figure]
    pieces: list[_Piece]
    problem: str


def status(message: str, mood: Literal["", "busy", "good", "bad"] = "") -> str:
    """A line that says how things stand; screen readers say it, too."""
    role = "alert" if mood == "bad" else "status"
    return _templates.get_template("status.html").render(message=message, mood=mood, role=role)


def run_status(run: Run, disturbed: bool = False) -> str:
    """How a comparison stands.

    Args:
        disturbed: Whether somebody spoke on the tab Live while it ran.
    """
    if run.problem:
        return status(run.problem, "bad")
    if run.before:
        others = "One other comparison is" if run.before == 1 else f"{run.before} others are"
        return status(f"{others} before yours, so that figures are fair: wait.", "busy")
    if run.stopped:
        return status("Stopped.")
    for side in run.sides:
        if side.state == "waiting":
            message = f"{side.choice.label} is next …" if run.duration else f"Reading {run.name} …"
            return status(message, "busy")
        if side.state == "loading":
            return status(
                f"Loading {run.model} with {side.choice.label} (a first time may compile for a "
                "minute) …",
                "busy",
            )
        if side.state == "transcribing":
            return status(f"{side.choice.label} transcribes …", "busy")
    if any(side.state == "failed" for side in run.sides):
        return status("A backend failed; its column says why.", "bad")
    if disturbed:
        return status(
            f"Done: {run.name}. Somebody spoke on the tab Live meanwhile, so figures may be worse "
            "than they should be.",
        )
    return status(f"Done: {run.name}.", "good")


def sides(run: Run) -> str:
    """The transcripts side by side, with figures and differences, as far as they are."""
    first = run.sides[0]
    colour = colours(run)
    return _templates.get_template("sides.html").render(
        sides=[
            _Side(
                label=side.choice.label,
                state=side.state,
                progress=_progress(side, run.duration),
                colour=colour[side.choice.label],
                figures=_figures(side, figures_of(side, first, run.duration)),
                pieces=_pieces(side, first),
                problem=side.problem,
            )
            for side in run.sides
        ]
    )


def history(records: Sequence[Record]) -> str:
    """The table of earlier comparisons, newest first, and the links that export it."""
    rows = [
        (
            record.time.replace("T", " ")[:19],
            record.recording,
            f"{record.duration:.1f} s",
            record.model,
            f"{record.backend} · {record.compute_type}",
            record.state,
            _number(record.real_time_factor, "{:.3f}"),
            _number(record.speed_up, "{:.2f} ×"),
            _number(record.peak_memory, "{:.0f} MB", 1e-6),
            _number(record.cpu, "{:.0f} %", 100),
            _number(record.word_differences, "{:.1f} %", 100),
        )
        for record in reversed(records)
    ]
    return _templates.get_template("history.html").render(
        columns=(
            *("began", "recording", "length", "model", "backend", "state"),
            *("RTF", "speed-up", "memory", "CPU", "differing"),
        ),
        rows=rows,
        json=_base64(to_json(records)),
        csv=_base64(to_csv(records)),
    )


def live(speaker: Speaker | None) -> str:
    """The words of a visitor who speaks, as far as they are."""
    return _templates.get_template("live.html").render(
        committed=speaker.committed.lstrip() if speaker else "",
        tentative=speaker.tentative if speaker else "",
        problem=speaker.problem if speaker else "",
    )


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _number(value: float | None, form: str, factor: float = 1) -> str:
    return "–" if value is None else form.format(value * factor)


def _progress(side: Side, duration: float) -> str:
    if side.state == "loading":
        return "loading the model …"
    if side.state == "transcribing":
        return f"{side.heard:.1f} of {duration:.1f} s heard"
    if side.state == "done":
        return f"done in {side.elapsed:.2f} s"
    return side.state


def _figures(side: Side, figures: Figures) -> list[_Figure]:
    values = {
        "RTF": _number(figures.real_time_factor, "{:.3f}"),
        "speed-up": _number(figures.speed_up, "{:.2f} ×"),
        "memory": _number(figures.peak_memory, "{:.0f} MB", 1e-6),
        "CPU": _number(figures.cpu, "{:.0f} %", 100),
        "differing": _number(figures.word_differences, "{:.1f} %", 100),
        "loading": _number(side.load_seconds, "{:.1f} s"),
    }
    if figures.gpu is not None:
        values["GPU"] = _number(figures.gpu, "{:.0f} %", 100)
    return [_Figure(name, value, _MEANINGS[name]) for name, value in values.items()]


def _pieces(side: Side, first: Side) -> list[_Piece]:
    """The text of a side, with what differs from the first side's up to the same time."""
    if side is first or not side.segments or not first.segments:
        return [_Piece(side.text)]
    until = None if side.state == "done" else side.heard
    pieces = []
    for span in compare_words(first.text_until(until), side.text).spans:
        if not span.differs:
            pieces.append(_Piece(span.hypothesis))
        elif span.hypothesis:
            instead = f"instead of: {span.reference}" if span.reference else "added"
            pieces.append(_Piece(span.hypothesis, "differs", instead))
        else:
            pieces.append(_Piece(span.reference, "missing", "left out"))
    return pieces
