"""The backend "openai-whisper": the original on PyTorch, if the extra `openai-whisper` is there."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from faster_whisper import WhisperModel
from faster_whisper.transcribe import Segment, TranscriptionInfo, TranscriptionOptions, Word

from ..audio import checked_audio
from ..engine.checkpoint.load import dense, load_checkpoint
from ..hookspecs import Availability, Backend, Transcriber, hookimpl

_DEFAULTS = {
    name: parameter.default
    for name, parameter in inspect.signature(WhisperModel.transcribe).parameters.items()
    if parameter.default is not parameter.empty
}
_INSTALL = "pip install 'whisper-max-backend[openai-whisper]'"
_SAME = (
    *("task", "beam_size", "best_of", "patience", "prefix", "temperature"),
    *("suppress_blank", "without_timestamps", "max_initial_timestamp", "initial_prompt"),
    *("compression_ratio_threshold", "no_speech_threshold", "condition_on_previous_text"),
    *("word_timestamps", "prepend_punctuations", "append_punctuations", "clip_timestamps"),
    "hallucination_silence_threshold",
)
"""Options of one name and meaning in both programs."""
_TRANSLATED = (
    *("language", "length_penalty", "log_prob_threshold", "log_progress"),
    "suppress_tokens",
)


class OpenAIWhisperBackend:
    name = "openai-whisper"
    summary = "openai-whisper on PyTorch"
    priority = 10

    def probe(self) -> Availability:
        try:
            version("openai-whisper")
            import torch
        except PackageNotFoundError:
            return Availability(reason=f"openai-whisper is not installed: {_INSTALL}")
        except ImportError as error:
            return Availability(reason=f"PyTorch cannot be imported ({error}): {_INSTALL}")
        devices: dict[str, tuple[str, ...]] = {"cpu": ("float32",)}
        if torch.cuda.is_available():
            devices["cuda"] = ("float16", "float32")
        return Availability(devices)

    def load(self, model: str, device: str, compute_type: str, **kwargs: Any) -> Transcriber:
        from ..plugins import resolve_model

        unknown = set(kwargs) - {"cpu_threads", "download_root", "local_files_only"}
        if unknown:
            raise ValueError(f"The backend '{self.name}' takes no {', '.join(sorted(unknown))}")
        if compute_type not in ("default", "auto", "float16", "float32"):
            raise ValueError(f"The backend '{self.name}' has no compute type {compute_type}")
        path = resolve_model(
            model,
            local_files_only=kwargs.get("local_files_only", False),
            cache_dir=kwargs.get("download_root"),
        )
        if threads := kwargs.get("cpu_threads"):
            import torch

            torch.set_num_threads(threads)  # of this process: PyTorch has no others
        if device == "auto":
            import torch

            device = "cuda" if torch.cuda.is_available() else "cpu"
        loaded = _load(path).to(device)
        half = compute_type != "float32" and loaded.device.type == "cuda"
        if compute_type == "float16" and not half:
            raise ValueError(f"The backend '{self.name}' has float16 on GPUs only")
        return _Adapter(loaded, half)


def _load(path: str) -> Any:
    """The model in a directory or .pt file, in whatever format, as openai-whisper has it."""
    import torch
    import whisper

    from ..engine.checkpoint import weight_adapters

    checkpoint = load_checkpoint(path)
    sizes = whisper.model.ModelDimensions(**vars(checkpoint.dimensions))
    layers = (sizes.n_audio_layer, sizes.n_text_layer)
    dense_weights = {name: dense(checkpoint.weights, name) for name in checkpoint.weight_names()}
    state = weight_adapters.separate(dense_weights, weight_adapters.OPENAI, *layers)
    model = whisper.model.Whisper(sizes)
    model.load_state_dict({name: torch.tensor(value) for name, value in state.items()})
    heads = checkpoint.config.get("alignment_heads")
    if heads:  # else those of the upper half of the layers
        mask = torch.zeros(sizes.n_text_layer, sizes.n_text_head, dtype=torch.bool)
        mask[tuple(zip(*heads, strict=True))] = True
        model.register_buffer("alignment_heads", mask.to_sparse(), persistent=False)
    return model


class _Adapter:
    """An openai-whisper model with faster-whisper's options and results."""

    def __init__(self, model: Any, half: bool) -> None:
        self.model = model
        self._half = half

    def transcribe(self, audio: Any, **options: Any) -> tuple[Iterable[Segment], TranscriptionInfo]:
        """As ``faster_whisper.WhisperModel.transcribe``, but segments come all at once.

        Raises:
            ValueError: An option that openai-whisper has not, or bad audio.
        """
        merged = {**_DEFAULTS, **options}
        known = (*_SAME, *_TRANSLATED)
        unknown = [
            name
            for name, value in options.items()
            if name not in known and value != _DEFAULTS.get(name, inspect.Parameter.empty)
        ]
        if unknown:
            raise ValueError(f"The backend 'openai-whisper' has no option {', '.join(unknown)}")
        if merged["length_penalty"] != 1:
            raise ValueError(
                "The backend 'openai-whisper' divides scores by the length: leave out "
                "length_penalty"
            )
        samples = checked_audio(audio, 16_000).astype(np.float32).reshape(-1)
        language, probabilities = self._language(samples, merged["language"])
        result = self.model.transcribe(
            samples,
            language=language,
            verbose=False if merged["log_progress"] else None,
            logprob_threshold=merged["log_prob_threshold"],
            suppress_tokens=merged["suppress_tokens"] or "",
            length_penalty=None,  # openai-whisper's word for the power of 1
            fp16=self._half,
            **{name: merged[name] for name in _SAME},
        )
        duration = len(samples) / 16_000
        info = TranscriptionInfo(
            language=language,
            language_probability=probabilities[0][1] if probabilities else 1,
            duration=duration,
            duration_after_vad=duration,
            all_language_probs=probabilities,
            transcription_options=_transcription_options(merged),
            vad_options=None,
        )
        return _segments(result["segments"]), info

    def _language(
        self, samples: np.ndarray, language: str | None
    ) -> tuple[str, list[tuple[str, float]] | None]:
        """The language given or detected in the first 30 seconds, and all probabilities."""
        if language is not None or not self.model.is_multilingual:
            return language or "en", None
        import whisper

        mel = whisper.log_mel_spectrogram(
            whisper.pad_or_trim(samples), n_mels=self.model.dims.n_mels
        )
        _, probabilities = self.model.detect_language(mel.to(self.model.device))
        ranked = sorted(probabilities.items(), key=lambda pair: -pair[1])
        return ranked[0][0], ranked


def _transcription_options(merged: dict[str, Any]) -> TranscriptionOptions:
    temperature = merged["temperature"]
    values = {
        **merged,
        "temperatures": temperature if isinstance(temperature, list | tuple) else [temperature],
    }
    return TranscriptionOptions(
        **{field.name: values[field.name] for field in fields(TranscriptionOptions)}
    )


def _segments(segments: Iterable[dict[str, Any]]) -> Iterator[Segment]:
    for number, segment in enumerate(segments, start=1):
        words = [Word(**word) for word in segment["words"]] if "words" in segment else None
        yield Segment(**{**segment, "id": number, "words": words})


@hookimpl
def register_backends(register: Callable[[Backend], None]) -> None:
    register(OpenAIWhisperBackend())
