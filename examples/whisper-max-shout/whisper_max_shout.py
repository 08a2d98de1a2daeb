"""A plugin for whisper-max-backend: a backend that shouts what "max" hears, and a model's name.

For `whisper-max corpus` it reads playlists, and writes the texts in upper case.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from faster_whisper.transcribe import Segment, TranscriptionInfo

from whisper_max_backend import hookimpl, load_model
from whisper_max_backend.backends import Availability, Backend, Transcriber
from whisper_max_backend.corpus import Reader, Row, Writer


class Shouting:
    """A model whose segments are in upper case."""

    def __init__(self, model: Transcriber) -> None:
        self.model = model

    def transcribe(self, audio: Any, **options: Any) -> tuple[Iterable[Segment], TranscriptionInfo]:
        segments, info = self.model.transcribe(audio, **options)
        return self.shout(segments), info

    @staticmethod
    def shout(segments: Iterable[Segment]) -> Iterator[Segment]:
        """One after the other, as they come."""
        for segment in segments:
            segment.text = segment.text.upper()
            yield segment


class ShoutingBackend:
    """What `whisper-max backends` lists, and `--backend shout` loads."""

    name = "shout"
    summary = "upper case"
    priority = 0  # never chosen by "auto" while another backend is usable

    def probe(self) -> Availability:
        """What works on this machine; an Availability with a reason if nothing does."""
        return Availability({"cpu": ("float32", "int8")})

    def load(self, model: str, device: str, compute_type: str, **kwargs: Any) -> Transcriber:
        """Whatever `transcribe`s: here, another backend's model."""
        return Shouting(load_model(model, "max", device, compute_type, **kwargs))


@hookimpl
def register_backends(register: Callable[[Backend], None]) -> None:
    register(ShoutingBackend())


@hookimpl
def resolve_model(name: str, local_files_only: bool) -> str | None:
    """The folder that a variable names, for the model called "house-style"."""
    return os.environ.get("HOUSE_STYLE_MODEL") if name == "house-style" else None


class PlaylistReader:
    """Playlists (.m3u): a path a line; what begins with # is a comment."""

    name = "playlists"

    def reads(self, source: str) -> bool:
        return source.endswith(".m3u")

    def rows(self, source: str, name: str) -> Iterator[Row]:
        """The recordings of a playlist; `reader` says whose `audio` opens them."""
        for line in Path(source).read_text().splitlines():
            if line and not line.startswith("#"):
                path = os.path.join(os.path.dirname(source), line)
                yield Row(key=line, source=path, reader=self.name)

    def audio(self, row: Row) -> Any:
        """What `transcribe` takes."""
        return row.source


class LoudWriter:
    """A file for each shard, with its texts in upper case."""

    name = "loud"

    def write(self, rows: Sequence[Mapping[str, Any]], shard: str, folder: Path) -> None:
        """Written under another name first: each file has to be whole at any time."""
        folder.mkdir(parents=True, exist_ok=True)
        lines = [f"{row['key']}:{row['text'].upper()}\n" for row in rows if row["error"] is None]
        temporary = folder / f".{shard}.{os.getpid()}"
        temporary.write_text("".join(lines))
        temporary.replace(folder / f"{shard}.txt")


@hookimpl
def register_readers(register: Callable[[Reader], None]) -> None:
    register(PlaylistReader())


@hookimpl
def register_writers(register: Callable[[Writer], None]) -> None:
    register(LoudWriter())
