"""``python -m benchmarks.gpu.peers NAME``: what others take for the same work on the same machine.

Each runs in a process of its own, before ours is loaded: where a library that it wants is missing,
it may end its process, and what it leaves on the device is gone with it.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.gpu.models import SIZES, prompt_of, random_features, random_model, save_model
from benchmarks.peers.dimension_names import transformers_names
from benchmarks.record import ROOT
from benchmarks.timing import times
from whisper_max_backend.engine.checkpoint.dimensions import Dimensions

SECONDS = 900
"""After which a peer is given up."""
BEAMS = 5


class FasterWhisper:
    """The engine of faster-whisper, in float16."""

    def __init__(self, dimensions: Dimensions, device: str) -> None:
        import ctranslate2

        self._storage = ctranslate2.StorageView.from_array
        checkpoint = random_model(dimensions)
        self._prompt = prompt_of(checkpoint.vocabulary)
        self._eot = checkpoint.vocabulary.eot
        with tempfile.TemporaryDirectory() as folder:
            save_model(checkpoint, Path(folder))
            compute_type = "float32" if device == "cpu" else "float16"
            self._model = ctranslate2.models.Whisper(
                folder, device=device, compute_type=compute_type
            )

    def generate(self, features: np.ndarray, tokens: int, beams: int) -> list[int]:
        """Encodes and decodes; returns how many tokens each window has."""
        results = self._model.generate(
            self._storage(features),
            [self._prompt] * len(features),
            beam_size=beams,
            max_length=2 * tokens,
            suppress_blank=False,
            suppress_tokens=[self._eot],
        )
        return [len(result.sequences_ids[0]) for result in results]


class Transformers:
    """Hugging Face transformers in bfloat16, with sdpa, a static cache and torch.compile."""

    def __init__(self, dimensions: Dimensions, device: str) -> None:
        import torch
        from transformers import WhisperConfig, WhisperForConditionalGeneration

        if device != "cpu" and not torch.cuda.is_available():
            raise RuntimeError("this PyTorch finds no GPU")
        self._torch = torch
        self._device = device
        self._dtype = torch.float32 if device == "cpu" else torch.bfloat16
        config = WhisperConfig(
            **transformers_names(dimensions),
            pad_token_id=0,
            bos_token_id=0,
            eos_token_id=0,
            decoder_start_token_id=1,
            attn_implementation="sdpa",
        )
        with torch.device(device):
            model = WhisperForConditionalGeneration(config)
        self._model = model.to(dtype=self._dtype).eval()
        self._model.forward = torch.compile(self._model.forward, mode="reduce-overhead")

    def generate(self, features: np.ndarray, tokens: int, beams: int) -> list[int]:
        """Encodes and decodes; returns how many tokens each window has."""
        from transformers import GenerationMixin

        torch = self._torch
        windows = torch.from_numpy(features).to(self._device, self._dtype)
        prompt = torch.full((len(features), 3), 5, device=self._device)
        # Whisper's own generate does what transcribe does: seeks, falls back, reads timestamps.
        with torch.inference_mode():
            ids = GenerationMixin.generate(
                self._model,
                windows,
                decoder_input_ids=prompt,
                num_beams=beams,
                do_sample=False,
                min_new_tokens=tokens,
                max_new_tokens=tokens,
                cache_implementation="static",
            )
        return [len(row) - 3 for row in ids.cpu().tolist()]


PEERS: dict[str, Callable[[Dimensions, str], FasterWhisper | Transformers]] = {
    "faster_whisper": FasterWhisper,
    "transformers": Transformers,
}


def ask(peer: str, *arguments: str) -> dict[str, Any]:
    """What a peer took, by case; ``{"error": reason}`` where it cannot run."""
    command = [sys.executable, "-m", "benchmarks.gpu.peers", peer, *arguments]
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=SECONDS, cwd=ROOT, check=False
        )
    except subprocess.TimeoutExpired:
        return {"error": f"did not end within {SECONDS} s"}
    lines = result.stdout.strip().splitlines()
    if result.returncode == 0 and lines:
        answer: dict[str, Any] = json.loads(lines[-1])
        return answer
    told = (result.stderr.strip().splitlines() or [""])[-1]
    return {"error": f"ended with status {result.returncode}: {told}"}


@click.command()
@click.argument("peer", type=click.Choice(list(PEERS)))
@click.option("--size", type=click.Choice(list(SIZES)), help="A model of random weights.")
@click.option("--model", help="A real model's directory, for the transcription of --audio.")
@click.option("--audio")
@click.option("--device", default="cuda")
@click.option("--tokens", default=100)
@click.option("--batch", default=32)
@click.option("--rounds", default=3)
def main(
    peer: str,
    size: str | None,
    model: str | None,
    audio: str | None,
    device: str,
    tokens: int,
    batch: int,
    rounds: int,
) -> None:
    """Time a peer, and print seconds by case as JSON."""
    answer: dict[str, Any]
    try:
        if size is not None:
            answer = _generations(peer, SIZES[size], device, tokens, batch, rounds)
        elif model is not None and audio is not None:
            answer = {"transcription": _transcription(model, audio, device, rounds)}
        else:
            raise click.UsageError("either --size, or --model and --audio")
    except click.ClickException:
        raise
    except Exception as error:
        answer = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer))


def _generations(
    peer: str, dimensions: Dimensions, device: str, tokens: int, batch: int, rounds: int
) -> dict[str, float]:
    model = PEERS[peer](dimensions, device)

    def seconds(windows: int, beams: int) -> float:
        features = random_features(dimensions, windows)

        def call() -> None:
            said = model.generate(features, tokens, beams)
            assert said == [tokens] * windows, said

        return median_seconds_of(call, rounds)

    return {"window": seconds(1, BEAMS), "batch": seconds(batch, 1)}


def _transcription(model: str, audio: str, device: str, rounds: int) -> float:
    """Of stock faster-whisper."""
    from faster_whisper import WhisperModel
    from faster_whisper.audio import decode_audio

    compute_type = "float32" if device == "cpu" else "float16"
    loaded = WhisperModel(model, device=device, compute_type=compute_type)
    samples = decode_audio(audio)
    return median_seconds_of(lambda: transcribe(loaded, samples), rounds)


def transcribe(model: Any, samples: np.ndarray) -> None:
    """With stock faster-whisper's model or with ours, to the end."""
    segments, _ = model.transcribe(samples, language="en", beam_size=BEAMS, temperature=0.0)
    list(segments)


def median_seconds_of(call: Callable[[], Any], rounds: int) -> float:
    """Median time of a call that ends when its work is done, after two that are not counted:
    what compiles, does so at the first two."""
    return statistics.median(times(call, rounds, warm_up=2))


if __name__ == "__main__":
    main()
