"""openai-whisper, the original."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.peers import Model, Transcribe, missing
from benchmarks.peers.converted import converted, openai_weights
from whisper_max_backend.engine.checkpoint.load import load_checkpoint


@dataclass(frozen=True)
class OpenAIWhisper:
    """In float32: it has no other precision on a CPU."""

    @property
    def name(self) -> str:
        return "openai-whisper float32"

    def why_absent(self) -> str:
        return missing("openai-whisper", "torch")

    def load(self, model: Model) -> Transcribe:
        import whisper

        folder = converted(model, "openai", functools.partial(_save, model))
        loaded = whisper.load_model(str(folder / "model.pt"), device="cpu")

        def transcribe(samples: np.ndarray, beams: int) -> str:
            result = loaded.transcribe(
                samples,
                language="en",
                beam_size=beams if beams > 1 else None,
                temperature=0.0,
                condition_on_previous_text=False,
                fp16=False,
            )
            return str(result["text"])

        return transcribe


def _save(model: Model, target: Path) -> None:
    import torch

    dimensions = load_checkpoint(model.folder).dimensions
    state = {name: torch.from_numpy(value) for name, value in openai_weights(model).items()}
    target.mkdir()
    torch.save({"dims": vars(dimensions), "model_state_dict": state}, target / "model.pt")
