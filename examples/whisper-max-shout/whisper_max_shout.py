"""A plugin for whisper-max-backend: a backend that shouts what "max" hears, and a model's name."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from faster_whisper.transcribe import Segment, TranscriptionInfo

from whisper_max_backend import hookimpl, load_model
from whisper_max_backend.backends import Availability, Backend, Transcriber


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
