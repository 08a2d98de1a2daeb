"""`faster_whisper.WhisperModel` over the MAX engine.

The reference's own methods do all of the transcription: windows, fallback, prompts, timestamps.
Here are only the objects that they work with, and a check of the audio that they are given.
"""

from __future__ import annotations

import copyreg
import inspect
import os
from abc import ABCMeta
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial, update_wrapper
from typing import TYPE_CHECKING, Any

import numpy as np
import tokenizers
from faster_whisper import transcribe as reference
from faster_whisper.utils import get_logger

from .audio import checked_audio
from .guards.prompts import prompt_tokens
from .system.cancellation import CancelToken
from .watch import Progress, current_watch, transcribe_watched, unwatched, watched_like

if TYPE_CHECKING:
    from .engine.whisper import Whisper
    from .many import ManyTranscription


class _Named(ABCMeta):
    """The type of a class that pickle is to find where it is, whatever its ``__module__`` says.

    Derived from `ABCMeta`, so that a class may have an abstract base besides.
    """


class WhisperModel(reference.WhisperModel, metaclass=_Named):
    """A Whisper model: same arguments, methods and attributes as the reference's.

    ``model_size_or_path`` may also be a Hugging Face directory (safetensors) or an openai-whisper
    ``.pt`` checkpoint.
    """

    # Programs recognise faster-whisper models by the module of their class.
    __module__ = reference.WhisperModel.__module__

    model: Whisper

    def __init__(
        self,
        model_size_or_path: str,
        device: str = "auto",
        device_index: int | list[int] = 0,
        compute_type: str = "default",
        cpu_threads: int = 0,
        num_workers: int = 1,
        download_root: str | None = None,
        local_files_only: bool = False,
        files: Mapping[str, Any] | None = None,
        revision: str | None = None,
        use_auth_token: str | bool | None = None,
        **model_kwargs: Any,
    ) -> None:
        # MAX is loaded with the first model, not with the package.
        from .engine.checkpoint.load import is_model_path
        from .engine.whisper import Whisper

        self.logger = get_logger()
        in_memory = dict(files or {})
        tokenizer_json = in_memory.pop("tokenizer.json", None)
        preprocessor_json = in_memory.pop("preprocessor_config.json", None)
        path = os.fspath(model_size_or_path)
        if not files and not is_model_path(path):
            # Plugins may know the name. A path is what it is, so they need not be loaded for it.
            from .plugins import resolve_model

            path = resolve_model(
                path,
                local_files_only=local_files_only,
                cache_dir=download_root,
                revision=revision,
                use_auth_token=use_auth_token,
            )
        self.model = Whisper(
            path,
            device=device,
            device_index=device_index,
            compute_type=compute_type,
            intra_threads=cpu_threads,
            inter_threads=num_workers,
            files=in_memory if files else None,
            **model_kwargs,
        )

        # Imports MAX, which the model above has found to run on this processor.
        from .feature_extractor import FeatureExtractor

        folder = os.path.dirname(path) if os.path.isfile(path) else path
        self.hf_tokenizer = _tokenizer(folder, tokenizer_json, self.model)
        self.feat_kwargs = self._get_feature_kwargs(folder, preprocessor_json)
        self.feature_extractor = FeatureExtractor(**self.feat_kwargs)
        if self.model.log_mel is not None:
            self.feature_extractor.device_kernel = self.model.log_mel
        rate, hop = self.feature_extractor.sampling_rate, self.feature_extractor.hop_length
        self.input_stride = 2
        self.num_samples_per_token = hop * self.input_stride
        self.frames_per_second = rate // hop
        self.tokens_per_second = rate // self.num_samples_per_token
        self.time_precision = 0.02
        self.max_length = 448

    def transcribe(
        self,
        audio: Any,
        *args: Any,
        progress: Progress | None = None,
        cancel: CancelToken | None = None,
        guards: bool | Iterable[str] = False,
        **kwargs: Any,
    ) -> Any:
        return transcribe_as_asked(self, self, audio, args, kwargs, progress, cancel, guards)

    def _transcribe(self, audio: Any, *args: Any, **kwargs: Any) -> Any:
        samples = checked_audio(audio, self.feature_extractor.sampling_rate)
        return super().transcribe(samples, *args, **kwargs)

    def generate_segments(self, features: np.ndarray, *args: Any, **kwargs: Any) -> Any:
        watch = current_watch()
        if watch is not None:
            features = watch.windows(features)
        return super().generate_segments(features, *args, **kwargs)

    def get_prompt(
        self, tokenizer: Any, previous_tokens: list[int], *args: Any, **kwargs: Any
    ) -> list[int]:
        prompt: list[int] = super().get_prompt(
            tokenizer, prompt_tokens(previous_tokens), *args, **kwargs
        )
        return prompt

    def transcribe_many(
        self,
        audios: Iterable[Any],
        *,
        keys: Iterable[str | int] | None = None,
        in_flight: int | None = None,
        on_error: Callable[[int, Exception], None] | None = None,
        **options: Any,
    ) -> Iterator[ManyTranscription]:
        """Transcribe many recordings at once; see `whisper_max_backend.many.transcribe_many`."""
        from .many import transcribe_many

        return transcribe_many(
            self, audios, keys=keys, in_flight=in_flight, on_error=on_error, **options
        )

    def detect_language(self, audio: Any = None, *args: Any, **kwargs: Any) -> Any:
        if audio is not None:
            audio = checked_audio(audio, self.feature_extractor.sampling_rate)
        return super().detect_language(audio, *args, **kwargs)


_OF_THE_WHOLE = frozenset(
    (
        *("audio", "language", "prefix", "log_progress"),
        *("clip_timestamps", "vad_filter", "vad_parameters", "batch_size"),
    )
)
"""Arguments of `transcribe` that say nothing of how a part of the recording is decoded."""


def transcribe_as_asked(
    transcriber: Any,
    model: reference.WhisperModel,
    audio: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    progress: Progress | None,
    cancel: CancelToken | None,
    guards: bool | Iterable[str],
) -> Any:
    """What `transcribe` returns: watched and guarded, if the caller wants that.

    Args:
        transcriber: A `WhisperModel` or `BatchedInferencePipeline` of this package.
        model: Decodes again what guards doubt.
        audio: Of `transcribe`, as are the others.
        args: Further arguments, by position.
        kwargs: Further arguments, by name.
        progress: See `transcribe`.
        cancel: See `transcribe`.
        guards: See `transcribe`.
    """
    transcribe = partial(transcriber._transcribe, audio, *args, **kwargs)
    if guards:
        transcribe = partial(_transcribe_guarded, transcriber, model, guards, audio, args, kwargs)
    return transcribe_watched(transcribe, progress, cancel)


def _transcribe_guarded(
    transcriber: Any,
    model: reference.WhisperModel,
    guards: bool | Iterable[str],
    audio: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """What `transcribe` returns, judged by guards. Parts are decoded again one after another."""
    from .guards.transcription import GuardedTranscription, Recording, chosen

    names = chosen(guards)
    rate = model.feature_extractor.sampling_rate
    samples = checked_audio(audio, rate)
    segments, info = transcriber._transcribe(samples, *args, **kwargs)
    given = inspect.signature(transcriber.transcribe).bind(samples, *args, **kwargs)
    options = {name: value for name, value in given.arguments.items() if name not in _OF_THE_WHOLE}

    def decode(part: np.ndarray, language: str) -> list[Any]:
        with unwatched():
            return list(model.transcribe(part, language=language, **options)[0])

    guarded = GuardedTranscription(
        names, Recording(samples, rate, model.hf_tokenizer, decode), info
    )
    return guarded.segments(segments), guarded.info


def _reduced(cls: _Named) -> str | tuple[Any, ...]:
    return (_whisper_model, ()) if cls is WhisperModel else cls.__qualname__


def _whisper_model() -> type[WhisperModel]:
    return WhisperModel


copyreg.pickle(_Named, _reduced)

# The reference's signatures and documentation. Decorators would hide the methods' types.
update_wrapper(WhisperModel.__init__, reference.WhisperModel.__init__)
watched_like(WhisperModel.transcribe, reference.WhisperModel.transcribe)
update_wrapper(WhisperModel.detect_language, reference.WhisperModel.detect_language)
update_wrapper(WhisperModel.get_prompt, reference.WhisperModel.get_prompt)
update_wrapper(WhisperModel.generate_segments, reference.WhisperModel.generate_segments)


def _tokenizer(folder: str, content: bytes | None, model: Whisper) -> tokenizers.Tokenizer:
    """The model's tokenizer.json, from memory or its folder, or else from the Hugging Face hub.

    Raises:
        RuntimeError: There is none, and the hub does not answer.
    """
    if content:
        return tokenizers.Tokenizer.from_buffer(content)
    path = os.path.join(folder, "tokenizer.json")
    if os.path.isfile(path):
        return tokenizers.Tokenizer.from_file(path)
    if not model.is_multilingual:
        published = "openai/whisper-tiny.en"
    elif model.num_languages < 100:
        published = "openai/whisper-tiny"
    else:  # large-v3 added a language, which moved the tokens behind it
        published = "openai/whisper-large-v3"
    try:
        return tokenizers.Tokenizer.from_pretrained(published)
    except Exception as error:  # the library raises nothing narrower
        raise RuntimeError(
            f"The model '{folder}' has no tokenizer.json, and that of {published} could not be "
            f"fetched ({error}): put the model's tokenizer.json into its folder"
        ) from error
