"""Transcripts as files, laid out as openai-whisper's command line writes them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from faster_whisper import format_timestamp
from faster_whisper.transcribe import Segment, TranscriptionInfo

from .guards.refusals import GuardedInfo
from .system.whole_files import whole_file

_ARROW = "-->"  # separates the times of a subtitle, so it may not be in its text


def txt(segments: Sequence[Segment], info: TranscriptionInfo) -> str:
    """The text, a line for each segment."""
    return "".join(f"{segment.text.strip()}\n" for segment in segments)


def srt(segments: Sequence[Segment], info: TranscriptionInfo) -> str:
    """SubRip: numbered, hours always, a comma before the milliseconds."""
    return "".join(
        f"{number}\n{_times(segment, hours=True, point=',')}\n{_subtitle(segment)}\n\n"
        for number, segment in enumerate(segments, start=1)
    )


def vtt(segments: Sequence[Segment], info: TranscriptionInfo) -> str:
    """WebVTT: hours where there are any."""
    return "WEBVTT\n\n" + "".join(
        f"{_times(segment, hours=False, point='.')}\n{_subtitle(segment)}\n\n"
        for segment in segments
    )


def tsv(segments: Sequence[Segment], info: TranscriptionInfo) -> str:
    """Tab-separated start, end (whole milliseconds) and text, with a header."""
    return "start\tend\ttext\n" + "".join(
        f"{round(1000 * segment.start)}\t{round(1000 * segment.end)}\t"
        f"{segment.text.strip().replace(chr(9), ' ')}\n"
        for segment in segments
    )


def as_json(segments: Sequence[Segment], info: TranscriptionInfo) -> str:
    """The whole text, every field of every segment, the language, and what guards refused."""
    content: dict[str, Any] = {
        "text": "".join(segment.text for segment in segments),
        "segments": [_fields(segment) for segment in segments],
        "language": info.language,
    }
    if isinstance(info, GuardedInfo):
        content["refused"] = [_fields(segment) for segment in info.refused]
    return json.dumps(content, ensure_ascii=False)


WRITERS: Mapping[str, Callable[[Sequence[Segment], TranscriptionInfo], str]] = {
    "txt": txt,
    "srt": srt,
    "vtt": vtt,
    "tsv": tsv,
    "json": as_json,
}


def write(path: Path, text: str) -> None:
    """Write a whole file or, on an error, none.

    Raises:
        OSError: The folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file:
        file.write(text.encode())


def _times(segment: Segment, hours: bool, point: str) -> str:
    start, end = (
        format_timestamp(seconds, always_include_hours=hours, decimal_marker=point)
        for seconds in (segment.start, segment.end)
    )
    return f"{start} {_ARROW} {end}"


def _subtitle(segment: Segment) -> str:
    text: str = segment.text.strip().replace(_ARROW, "->")
    return text


def _fields(segment: Segment) -> dict[str, Any]:
    fields = asdict(segment)
    if fields["words"] is None:
        del fields["words"]
    return fields
