"""What has become of a corpus: a table for the terminal, and a page."""

from __future__ import annotations

import heapq
import html
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table

from .shards import Shards

_COLUMNS = ("key", "source", "duration", "language", "seconds", "error")
_SLOWEST = 20
_ERRORS = 200
"""Failures that the page lists; all are in the shards."""
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:70em;margin:2em auto;padding:0 1em}"
    "table{border-collapse:collapse;margin:1em 0}td,th{padding:.2em .8em;text-align:left;"
    "border-bottom:1px solid #ccc;vertical-align:top}td.n{text-align:right}"
)


@dataclass
class Summary:
    """Of all shards that are complete.

    Attributes:
        rows: Recordings.
        hours: Of audio, by language.
        work: Seconds in which recordings were transcribed, several at a time.
        failures: How many, by the kind of error.
        errors: Key and error of the first ones.
        slowest: Seconds of work for a second of audio, key and seconds of audio.
    """

    rows: int = 0
    hours: Counter[str] = field(default_factory=Counter)
    work: float = 0.0
    failures: Counter[str] = field(default_factory=Counter)
    errors: list[tuple[str, str]] = field(default_factory=list)
    slowest: list[tuple[float, str, float]] = field(default_factory=list)

    def add(self, row: dict[str, Any]) -> None:
        self.rows += 1
        if row["error"] is not None:
            self.failures[_kind(row["error"])] += 1
            if len(self.errors) < _ERRORS:
                self.errors.append((row["key"], row["error"]))
            return
        self.hours[row["language"]] += row["duration"] / 3600
        self.work += row["seconds"]
        if row["duration"]:
            found = (row["seconds"] / row["duration"], row["key"], row["duration"])
            keep = heapq.heappush if len(self.slowest) < _SLOWEST else heapq.heappushpop
            keep(self.slowest, found)


def summary_of(shards: Shards) -> Summary:
    """Reads the shards one after another."""
    summary = Summary()
    for name in sorted(shards.names()):
        for row in shards.read(name, _COLUMNS):
            summary.add(row)
    return summary


def table(summary: Summary, run: dict[str, Any]) -> Table:
    """For the terminal."""
    shown = Table(show_header=False)
    for name, value in _figures(summary, run):
        shown.add_row(name, value)
    return shown


def page(summary: Summary, run: dict[str, Any], job: dict[str, Any]) -> str:
    """As HTML."""
    slowest = [
        (key, f"{seconds:.1f} s", f"{factor:.2f}")
        for factor, key, seconds in sorted(summary.slowest, reverse=True)
    ]
    hours = [(language, f"{value:.2f}") for language, value in summary.hours.most_common()]
    kinds = [(kind, str(count)) for kind, count in summary.failures.most_common()]
    parts = [
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>Corpus</title>",
        f"<style>{_STYLE}</style><h1>Corpus</h1>",
        _html(("", ""), _figures(summary, run)),
        _html(("", ""), [(name, str(value)) for name, value in job.items()]),
        "<h2>Languages</h2>",
        _html(("Language", "Hours"), hours),
        "<h2>Slowest recordings</h2>",
        _html(("Recording", "Audio", "Seconds of work for one of audio"), slowest),
        "<h2>Failures</h2>",
        _html(("Kind", "Recordings"), kinds),
        _html(("Recording", "Error"), summary.errors),
    ]
    return "\n".join(parts) + "\n"


def _figures(summary: Summary, run: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        ("Recordings", str(summary.rows)),
        ("Failed", str(summary.failures.total())),
        ("Hours of audio", f"{sum(summary.hours.values()):.2f}"),
        *(
            (f"Hours in {language}", f"{hours:.2f}")
            for language, hours in summary.hours.most_common(5)
        ),
        ("Done in this run", str(run["rows"])),
        ("Speed of this run", f"{run['speed']:.1f} times real time"),
        ("Time of this run", f"{run['elapsed_s']:.0f} s since the model was loaded"),
        ("Processes", f"{run['actors']}, {run['lost_actors']} lost"),
    ]


def _kind(error: str) -> str:
    """The exception's name, behind the file's; other errors have none."""
    found = re.search(r": ([A-Z]\w+): ", error)
    return found[1] if found else error.rsplit(": ", 1)[-1]


def _html(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    cells = [[f"<td>{html.escape(cell)}" for cell in row] for row in rows]
    if not cells:
        return "<p>None.</p>"
    header = "".join(f"<th>{html.escape(cell)}" for cell in head)
    return f"<table><tr>{header}" + "".join(f"<tr>{''.join(row)}" for row in cells) + "</table>"
