"""A comparison as JSON, and as one HTML file that needs nothing else."""

from __future__ import annotations

import io
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from jinja2 import Environment, PackageLoader
from matplotlib.figure import Figure

from .measure import MeasuredSide, Recording, Transcription
from .terminal import figures

# Told apart with any colour vision (Okabe and Ito, 2008).
_COLOURS = ("#e69f00", "#0072b2", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
_PACKAGES = ("whisper-max-backend", "max", "faster-whisper", "ctranslate2", "openai-whisper")


def to_data(
    model: str,
    options: Mapping[str, Any],
    recordings: Sequence[Recording],
    sides: Sequence[MeasuredSide],
    against: str,
) -> dict[str, Any]:
    """Everything that is known, for `json.dumps`."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": {"system": platform.platform(), "cores": os.cpu_count()},
        "versions": {"python": platform.python_version(), **_versions()},
        "model": model,
        "options": dict(options),
        "compared_with": against,
        "recordings": [
            {
                "name": recording.name,
                "seconds": recording.duration,
                "transcript": recording.transcript,
                "sides": [
                    _side_data(recording, side, side.transcriptions[number]) for side in sides
                ],
            }
            for number, recording in enumerate(recordings)
        ],
    }


def to_html(
    data: Mapping[str, Any], recordings: Sequence[Recording], sides: Sequence[MeasuredSide]
) -> str:
    """The page; `data` is what `to_data` gave."""
    templates = Environment(
        loader=PackageLoader("whisper_max_backend.comparison"), autoescape=True, trim_blocks=True
    )
    parts = [
        {
            "recording": recording,
            "plot": _plot(recording, sides, number),
            "rows": [
                {
                    "label": side.choice.label,
                    "result": side.transcriptions[number],
                    "figures": figures(recording, side, side.transcriptions[number]),
                }
                for side in sides
            ],
        }
        for number, recording in enumerate(recordings)
    ]
    return templates.get_template("report.html").render(data=data, parts=parts)


def _side_data(recording: Recording, side: MeasuredSide, result: Transcription) -> dict[str, Any]:
    middle = result.median
    return {
        **asdict(side.choice),
        "problem": result.problem or None,
        "start_seconds": side.start_seconds,
        "seconds": result.seconds,
        "median_seconds": middle,
        "first_text_seconds": result.first_text,
        "real_time_factor": None if middle is None else middle / recording.duration,
        "speed_up": result.speed_up,
        "peak_memory": result.peak_memory,
        "cpu": result.cpu,
        "gpu": result.gpu,
        "word_error_rate": result.words.error_rate if result.words else None,
        "differences": [asdict(one) for one in result.words.spans if one.differs]
        if result.words
        else [],
        "language": result.language,
        "text": result.text,
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # an optional backend
            continue
    return found


def _plot(recording: Recording, sides: Sequence[MeasuredSide], number: int) -> str:
    """Real-time factors, peak memory, and memory and processor over time, as SVG."""
    done = [
        (side.choice.label, side.transcriptions[number], colour)
        for side, colour in zip(sides, _COLOURS * len(sides), strict=False)
        if side.transcriptions[number].seconds
    ]
    if not done:
        return ""
    figure = Figure(figsize=(11, 6), layout="constrained")
    (speed, peak), (memory, use) = figure.subplots(2, 2)
    speed.set_title("Real-time factor (lower is better); dots are the turns", fontsize=10)
    peak.set_title("Peak memory, MB", fontsize=10)
    memory.set_title("Memory over the last turn, MB", fontsize=10)
    use.set_title("Processor over the last turn, %", fontsize=10)
    for row, (label, result, colour) in enumerate(done):
        factors = [seconds / recording.duration for seconds in result.seconds]
        speed.barh(row, (result.median or 0) / recording.duration, color=colour, alpha=0.6)
        speed.plot(factors, [row] * len(factors), "o", color="black", markersize=3)
        peak.barh(row, (result.peak_memory or 0) / 1e6, color=colour, alpha=0.6)
        last = result.samples[-1]
        times = [one.seconds for one in last]
        memory.plot(times, [one.memory / 1e6 for one in last], color=colour, label=label)
        use.plot(times, [one.cpu * 100 for one in last], color=colour, label=label)
        if any(one.gpu is not None for one in last):
            gpu = [100 * (one.gpu or 0) for one in last]
            use.plot(times, gpu, "--", color=colour, label=f"{label}, GPU")
    for axes in (speed, peak):
        axes.set_yticks(range(len(done)), [label for label, _, _ in done])
        axes.invert_yaxis()
    for axes in (memory, use):
        axes.set_ylim(bottom=0)
        axes.set_xlabel("seconds")
        axes.legend(fontsize=8)
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None})
    written = drawn.getvalue()
    return written[written.index("<svg") :]
