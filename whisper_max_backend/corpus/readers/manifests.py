"""Lists of recordings: text files with a path a line, and the manifests of NeMo and lhotse."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ...hookspecs import Row
from ..places import beside, text_of

_SAME = 0.01  # seconds between a cut and its recording that are no difference


class ListReader:
    """Text files with a path or address a line; what is no absolute path is beside the list."""

    name = "lists"

    def reads(self, source: str) -> bool:
        return source.endswith(".txt")

    def rows(self, source: str, name: str) -> Iterator[Row]:
        with text_of(source) as lines:
            for line in lines:
                if path := line.strip():
                    yield Row(path, beside(source, path))

    def audio(self, row: Row) -> Any:
        raise NotImplementedError("the rows of a list are those of files")


class ManifestReader:
    """JSON lines: NeMo's manifests, and lhotse's recordings and cuts."""

    name = "manifests"

    def reads(self, source: str) -> bool:
        return source.removesuffix(".gz").endswith((".jsonl", ".json"))

    def rows(self, source: str, name: str) -> Iterator[Row]:
        with text_of(source) as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                try:
                    yield _row(source, json.loads(line))
                except (KeyError, TypeError, ValueError) as error:
                    problem = f"there is no {error}" if isinstance(error, KeyError) else str(error)
                    raise ValueError(f"{source}, line {number}: {problem}") from error

    def audio(self, row: Row) -> Any:
        raise NotImplementedError("the rows of a manifest are those of files")


def _row(source: str, entry: Any) -> Row:
    if not isinstance(entry, dict):
        raise ValueError("each line is a JSON object, but this one is not")
    if "audio_filepath" in entry:
        return _nemo(source, entry)
    if "sources" in entry:
        path = beside(source, _only_file(entry))
        return Row(str(entry["id"]), path, duration=float(entry["duration"]))
    if "recording" in entry:
        return _cut(source, entry)
    raise ValueError(
        "this is neither NeMo's (audio_filepath) nor lhotse's (a recording, or a cut with one)"
    )


def _nemo(source: str, entry: Mapping[str, Any]) -> Row:
    path = str(entry["audio_filepath"])
    duration = None if entry.get("duration") is None else float(entry["duration"])
    offset = entry.get("offset")
    if offset is not None:
        offset = float(offset)
        if duration is None:
            raise ValueError("a part has an offset and a duration, but there is no duration")
    default = path if offset is None else f"{path}@{offset:g}"
    key = entry.get("id", default)
    return Row(str(key), beside(source, path), offset=offset, duration=duration)


def _cut(source: str, entry: Mapping[str, Any]) -> Row:
    recording = entry["recording"]
    start, duration = float(entry["start"]), float(entry["duration"])
    whole = start == 0 and abs(duration - float(recording["duration"])) < _SAME
    if not whole and len(recording.get("channel_ids", (0,))) > 1:
        raise ValueError("cuts of recordings with several channels cannot be read")
    path = beside(source, _only_file(recording))
    return Row(str(entry["id"]), path, offset=None if whole else start, duration=duration)


def _only_file(recording: Mapping[str, Any]) -> str:
    sources = recording["sources"]
    if len(sources) != 1 or sources[0]["type"] not in ("file", "url"):
        kinds = ", ".join(str(one.get("type")) for one in sources)
        raise ValueError(f"a recording is one file or url, but this one is: {kinds}")
    return str(sources[0]["source"])
