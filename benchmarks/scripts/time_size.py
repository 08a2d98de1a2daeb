"""Loads a model, encodes windows, takes decoder steps, and prints what it took as JSON.

``python -m benchmarks.scripts.time_size MODULE FOLDER TYPE THREADS``
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np
from faster_whisper.transcribe import get_ctranslate2_storage

from benchmarks.scripts.peak_memory import peak_bytes
from benchmarks.timing import times

ROUNDS = 5
BEAMS = 5
FEW, MANY = 4, 36
"""Tokens of two runs, whose difference is that of so many steps."""


def main(module: str, folder: str, compute_type: str, threads: str) -> None:
    """Seconds of a load, of a window and of a step of 5 beams; and the peak of resident bytes."""
    whisper_model = import_module(module).WhisperModel
    started = time.perf_counter()
    loaded = whisper_model(
        folder, device="cpu", compute_type=compute_type, cpu_threads=int(threads)
    )
    load = time.perf_counter() - started
    model = loaded.model
    noise = np.random.default_rng(0).normal(0, 0.3, (1, model.n_mels, 3000)).astype(np.float32)
    features = get_ctranslate2_storage(noise)
    encode = statistics.median(times(lambda: model.encode(features), ROUNDS))
    states = model.encode(features)
    tokens = {name: loaded.hf_tokenizer.token_to_id(f"<|{name}|>") for name in ("en", "endoftext")}
    prompt = [
        loaded.hf_tokenizer.token_to_id(f"<|{name}|>")
        for name in ("startoftranscript", "en", "transcribe", "notimestamps")
    ]

    def generate(length: int) -> Any:
        (result,) = model.generate(
            states,
            [prompt],
            beam_size=BEAMS,
            suppress_tokens=[tokens["endoftext"]],
            suppress_blank=False,
            max_length=2 * length,
        )
        assert len(result.sequences_ids[0]) == length
        return result

    long, short = (
        statistics.median(times(partial(generate, count), ROUNDS)) for count in (MANY, FEW)
    )
    print(
        json.dumps(
            {
                "load_seconds": load,
                "encode_seconds": encode,
                "step_seconds": (long - short) / (MANY - FEW),
                "peak_bytes": peak_bytes(),
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
