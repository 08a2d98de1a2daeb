"""faster-whisper, and this package, which has its interface."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from benchmarks.peers import Model, Transcribe

LABELS = {"whisper_max_backend": "ours", "faster_whisper": "faster-whisper"}
OPTIONS = {"language": "en", "temperature": 0.0, "condition_on_previous_text": False}
"""Of a transcription, as all peers have them."""


@dataclass(frozen=True)
class FasterWhisper:
    """`module` is either's name; no threads means as many as it takes by itself."""

    module: str
    compute_type: str
    threads: int = 0

    @property
    def name(self) -> str:
        threads = f", {self.threads} thread" if self.threads else ""
        return f"{LABELS[self.module]} {self.compute_type}{threads}"

    def why_absent(self) -> str:
        if self.module != "whisper_max_backend":
            return ""
        from whisper_max_backend.engine.api.compute_types import select

        try:
            select(self.compute_type, "float16", "cpu", "cpu")
        except ValueError as error:
            return str(error)
        return ""

    def open(self, model: Model) -> Any:
        """The program's own object."""
        return import_module(self.module).WhisperModel(
            str(model.folder),
            device="cpu",
            compute_type=self.compute_type,
            cpu_threads=self.threads,
        )

    def load(self, model: Model) -> Transcribe:
        loaded = self.open(model)

        return functools.partial(heard, loaded)


def heard(model: Any, samples: np.ndarray, beams: int) -> str:
    """The text of a loaded model."""
    segments, _ = model.transcribe(samples, beam_size=beams, **OPTIONS)
    return "".join(segment.text for segment in segments)
