"""What is kept of a comparison: a record for each side, exported as JSON or CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

from .figures import figures_of
from .runs import Run


@dataclass(frozen=True)
class Record:
    """A side of a comparison that has ended; a figure is None where it could not be had.

    Attributes:
        time: When the comparison began, ISO 8601.
        duration: Seconds of audio.
        state: "done", "failed" or "stopped".
        compared_with: Backend and precision of the first side.
        load_seconds: None where the model was loaded already.
        seconds: Of transcription.
        real_time_factor: Seconds of transcription for a second of audio.
        speed_up: Over the first side.
        peak_memory: Of the backend's process, bytes.
        cpu: Mean, 1 for a core at work all the time.
        gpu: Mean, 1 for a GPU at work all the time.
        word_differences: Differing words for each word of the first side.
    """

    time: str
    recording: str
    duration: float
    model: str
    backend: str
    device: str
    compute_type: str
    beam_size: int
    vad_filter: bool
    language: str
    state: str
    compared_with: str
    load_seconds: float | None
    seconds: float
    real_time_factor: float | None
    speed_up: float | None
    peak_memory: int | None
    cpu: float | None
    gpu: float | None
    word_differences: float | None
    text: str


def records_of(run: Run) -> list[Record]:
    """A record for each side that began."""
    first = run.sides[0]
    return [
        Record(
            time=run.began.isoformat(timespec="seconds"),
            recording=run.name,
            duration=run.duration,
            model=run.model,
            backend=side.choice.backend,
            device=side.choice.device,
            compute_type=side.choice.compute_type,
            beam_size=run.options["beam_size"],
            vad_filter=run.options["vad_filter"],
            language=side.language,
            state=side.state,
            compared_with=first.choice.label,
            load_seconds=side.load_seconds,
            seconds=side.elapsed,
            text=side.text,
            **asdict(figures_of(side, first, run.duration)),
        )
        for side in run.sides
        if side.meter is not None
    ]


def to_json(records: Sequence[Record]) -> str:
    return json.dumps([asdict(record) for record in records], indent=2, ensure_ascii=False)


def to_csv(records: Sequence[Record]) -> str:
    written = io.StringIO()
    writer = csv.DictWriter(written, [field.name for field in fields(Record)])
    writer.writeheader()
    writer.writerows(map(asdict, records))
    return written.getvalue()
