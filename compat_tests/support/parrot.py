"""A backend that needs no model."""

from __future__ import annotations

import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from faster_whisper.transcribe import Segment

from whisper_max_backend.backends import Availability


class Parrot:
    """A backend that says the name of each file; its `calls` are what it was asked."""

    name, summary, priority = "parrot", "repeats", -1

    def __init__(self) -> None:
        self.loaded: list[Any] = []
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def probe(self) -> Availability:
        return Availability({"cpu": ("float32",)})

    def load(self, model: str, device: str, compute_type: str, **kwargs: Any) -> Parrot:
        if model == "unloadable":
            raise RuntimeError("the model is bad: get another")
        self.loaded.append((model, device, compute_type, kwargs))
        return self

    def transcribe(self, audio: str, **options: Any) -> Any:
        self.calls.append((audio, options))
        if "bad" in Path(audio).name:
            raise ValueError("this is noise: give speech")
        return self._segments(Path(audio).name), types.SimpleNamespace(duration=4.0, language="en")

    @staticmethod
    def _segments(name: str) -> Iterator[Segment]:
        for index, text in enumerate((f" {name}", " says the parrot.")):
            yield Segment(
                **{"id": index + 1, "seek": 0, "start": 2.0 * index, "end": 2.0 * index + 1.5},
                **{"text": text, "tokens": [index], "avg_logprob": -0.1, "words": None},
                **{"compression_ratio": 1.0, "no_speech_prob": 0.0, "temperature": 0.0},
            )
        if "late" in name:
            raise RuntimeError("failed half way")
