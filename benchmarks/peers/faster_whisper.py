"""faster-whisper, and this package, which has its interface."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from benchmarks.peers import Model, Transcribe

LABELS = {"whisper_max_backend": "ours", "faster_whisper": "faster-whisper"}


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
        from whisper_max_backend.engine.precision import select

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

        def transcribe(samples: np.ndarray, beams: int) -> str:
            segments, _ = loaded.transcribe(
                samples,
                language="en",
                beam_size=beams,
                temperature=0.0,
                condition_on_previous_text=False,
            )
            return "".join(segment.text for segment in segments)

        return transcribe
