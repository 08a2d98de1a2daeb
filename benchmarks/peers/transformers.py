"""Hugging Face transformers on PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.peers import Model, Transcribe, missing
from benchmarks.peers.converted import hugging_face

RATE = 16_000
_WINDOW = 30 * RATE


@dataclass(frozen=True)
class Transformers:
    """`dtype` by PyTorch's name."""

    dtype: str

    @property
    def name(self) -> str:
        return f"transformers {self.dtype}"

    def why_absent(self) -> str:
        return missing("transformers", "torch")

    def load(self, model: Model) -> Transcribe:
        import torch
        from transformers import WhisperForConditionalGeneration, WhisperProcessor

        folder = str(hugging_face(model))
        processor: Any = WhisperProcessor.from_pretrained(folder)
        loaded = WhisperForConditionalGeneration.from_pretrained(
            folder, dtype=getattr(torch, self.dtype)
        )
        words = {"language": "en", "task": "transcribe"} if "." not in model.name else {}

        def transcribe(samples: np.ndarray, beams: int) -> str:
            long = len(samples) > _WINDOW
            inputs = processor.feature_extractor(
                samples,
                sampling_rate=RATE,
                return_tensors="pt",
                truncation=not long,
                padding="longest" if long else "max_length",
                return_attention_mask=True,
            )
            with torch.inference_mode():
                tokens = loaded.generate(
                    inputs.input_features.to(loaded.dtype),
                    attention_mask=inputs.attention_mask,
                    num_beams=beams,
                    do_sample=False,
                    return_timestamps=True,
                    condition_on_prev_tokens=False,
                    **words,
                )
            return str(processor.batch_decode(tokens, skip_special_tokens=True)[0])

        return transcribe
