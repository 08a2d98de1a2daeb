"""Files beside the shards: subtitles of each recording, and lhotse's supervisions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

from faster_whisper.transcribe import Segment, Word

from ..hookspecs import Writer
from ..plugins import manager, registered
from ..writers import WRITERS, write

TEXTS = ("txt", "srt", "vtt", "tsv")
"""The kinds of files that a `TextWriter` writes."""
_LONGEST = 200  # bytes of a name; file systems have 255, and some of them are taken by the suffix


class TextWriter:
    """A file for each recording, called as its key is."""

    def __init__(self, name: str) -> None:
        self.name = name

    def write(self, rows: Sequence[Mapping[str, Any]], shard: str, folder: Path) -> None:
        for row in rows:
            if row["error"] is None:
                segments = list(map(_segment, row["segments"]))
                info: Any = SimpleNamespace(language=row["language"])
                path = folder / f"{file_name(row['key'])}.{self.name}"
                write(path, WRITERS[self.name](segments, info))


class LhotseWriter:
    """Supervisions of lhotse: a line for each segment; the recording's id is the key."""

    name = "lhotse"

    def write(self, rows: Sequence[Mapping[str, Any]], shard: str, folder: Path) -> None:
        lines = [
            json.dumps(_supervision(row, segment), ensure_ascii=False) + "\n"
            for row in rows
            for segment in row["segments"] or ()
        ]
        write(folder / f"supervisions-{shard}.jsonl", "".join(lines))


def file_name(key: str) -> str:
    """The key as a relative path that stays within its folder."""
    if any(len(part.encode()) > _LONGEST for part in key.split("/")):
        return hashlib.sha256(key.encode()).hexdigest()
    path = PurePosixPath(key)
    if path.is_absolute() or ".." in path.parts or str(path) != key or "\0" in key:
        quoted = quote(key, safe="")
        return quoted if len(quoted) <= _LONGEST else hashlib.sha256(key.encode()).hexdigest()
    return key


def _segment(fields: Mapping[str, Any]) -> Segment:
    words = fields["words"]
    return Segment(**{**fields, "words": words and [Word(**word) for word in words]})


def _supervision(row: Mapping[str, Any], segment: Mapping[str, Any]) -> dict[str, Any]:
    start, end = segment["start"], segment["end"]
    supervision = {
        "id": f"{row['key']}-{segment['id']}",
        "recording_id": row["key"],
        "start": start,
        "duration": round(end - start, 3),
        "channel": 0,
        "language": row["language"],
        "text": segment["text"].strip(),
    }
    if segment["words"]:
        supervision["alignment"] = {
            "word": [
                [
                    *(word["word"].strip(), word["start"]),
                    *(round(word["end"] - word["start"], 3), word["probability"]),
                ]
                for word in segment["words"]
            ]
        }
    return supervision


def writers() -> dict[str, Writer]:
    """Every writer by name.

    Raises:
        PluginError: Two writers have one name.
    """
    return registered("writer", manager().hook.register_writers)
