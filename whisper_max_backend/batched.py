"""`faster_whisper.BatchedInferencePipeline`, with what hours of audio need of memory.

The reference makes the features of the whole recording before the first batch; here each batch's
are made when it is decoded. Decoding, segments and timestamps are the reference's own.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterable, Sequence
from functools import update_wrapper
from typing import Any

import numpy as np
from faster_whisper import transcribe as reference
from faster_whisper.audio import pad_or_trim
from faster_whisper.tokenizer import Tokenizer
from faster_whisper.utils import format_timestamp
from faster_whisper.vad import VadOptions

from .audio import Samples, checked_samples
from .model import transcribe_as_asked
from .speech import Speech, SpeechFinder, speech_timestamps
from .system.cancellation import CancelToken
from .watch import Progress, current_watch, watched_like

_MOST_SECONDS = 30
"""Of a window: the model sees no more of a clip."""


class BatchedInferencePipeline(reference.BatchedInferencePipeline):
    """The reference's pipeline for batches of windows: same arguments, same results."""

    def transcribe(
        self,
        audio: Any,
        *args: Any,
        progress: Progress | None = None,
        cancel: CancelToken | None = None,
        guards: bool | Iterable[str] = False,
        **kwargs: Any,
    ) -> Any:
        return transcribe_as_asked(self, self.model, audio, args, kwargs, progress, cancel, guards)

    def _transcribe(self, audio: Any, *args: Any, **kwargs: Any) -> Any:
        bound = _SIGNATURE.bind(self, audio, *args, **kwargs)
        bound.apply_defaults()
        given = bound.arguments
        model, log = self.model, self.model.logger
        rate = model.feature_extractor.sampling_rate
        multilingual = given["multilingual"] and model.model.is_multilingual
        if given["multilingual"] and not multilingual:
            log.warning("the model is English-only: multilingual=True is ignored")
        speeches, vad_options = given["clip_timestamps"], given["vad_parameters"]
        if given["vad_filter"] and not speeches:
            # CTranslate2's models do not say how many threads they have.
            with SpeechFinder(getattr(model.model, "intra_threads", 0)) as finder:
                samples = checked_samples(audio, rate, finder.push)
                heard = finder.probabilities()
        else:
            samples = checked_samples(audio, rate)
        duration = len(samples) / rate
        log.info("Processing audio with duration %s", format_timestamp(duration))

        if speeches:
            speeches = [{key: int(at * rate) for key, at in clip.items()} for clip in speeches]
            chunks = [[clip] for clip in speeches]
            metadata = [self._clip_metadata(index, clip) for index, clip in enumerate(speeches)]
        else:
            most = given["chunk_length"] or model.feature_extractor.chunk_length
            if given["vad_filter"]:
                vad_options = _vad_options(vad_options, most)
                speeches = speech_timestamps(heard, len(samples), vad_options)
            elif duration < most:
                speeches = [{"start": 0, "end": len(samples)}]
            else:
                raise RuntimeError(
                    f"The recording has {duration:.2f} s, more than a window of {most} s, and "
                    "nothing says where to cut it: set vad_filter=True or give clip_timestamps"
                )
            chunks = _chunks(speeches, most * rate)
            metadata = _chunks_metadata(chunks, rate)
        spoken = sum(speech["end"] - speech["start"] for speech in speeches) / rate
        log.info("VAD filter removed %s of audio", format_timestamp(duration - spoken))

        features = _Features(model, samples, chunks if spoken else [])
        language, probability, probabilities = self._language(features, given)
        tokenizer = Tokenizer(
            model.hf_tokenizer,
            model.model.is_multilingual,
            task=given["task"],
            language=language,
        )
        options = _options(given, tokenizer, speeches, multilingual)
        info = reference.TranscriptionInfo(
            language=language,
            language_probability=probability,
            duration=duration,
            duration_after_vad=spoken,
            transcription_options=options,
            vad_options=vad_options,
            all_language_probs=probabilities,
        )
        segments = self._batched_segments_generator(
            features, tokenizer, metadata, given["batch_size"], options, given["log_progress"]
        )
        if not given["clip_timestamps"]:
            segments = reference.restore_speech_timestamps(segments, speeches, rate)
        return segments, info

    def forward(
        self, features: Any, tokenizer: Any, chunks_metadata: list[dict[str, float]], options: Any
    ) -> Any:
        outputs = super().forward(features, tokenizer, chunks_metadata, options)
        watch = current_watch()
        if watch is not None:
            watch.chunks_done(sum(chunk["duration"] for chunk in chunks_metadata))
        return outputs

    def _clip_metadata(self, index: int, clip: Speech) -> dict[str, Any]:
        """What `forward` is told of a clip that the caller chose."""
        rate = self.model.feature_extractor.sampling_rate
        seconds = (clip["end"] - clip["start"]) / rate
        if seconds > _MOST_SECONDS:
            self.model.logger.warning(
                "clip %d has %.2f s: only its first %d s are transcribed",
                index,
                seconds,
                _MOST_SECONDS,
            )
        return {"offset": clip["start"] / rate, "duration": seconds, "segments": [clip]}

    def _language(self, features: _Features, given: dict[str, Any]) -> tuple[str, float, Any]:
        """The language, its probability, and those of all languages where it was detected."""
        model, language = self.model, given["language"]
        if not model.model.is_multilingual:
            if language not in (None, "en"):
                model.logger.warning("the model is English-only: language=%r is ignored", language)
            return "en", 1, None
        if language is not None:
            return language, 1, None
        segments = given["language_detection_segments"]
        found: tuple[str, float, Any] = model.detect_language(
            features=features.beginning(segments * model.feature_extractor.nb_max_frames),
            language_detection_segments=segments,
            language_detection_threshold=given["language_detection_threshold"],
        )
        model.logger.info("Detected language '%s' with probability %.2f", *found[:2])
        return found


class _Features:
    """Features of the chunks of a recording, made when they are asked for.

    Each chunk is several parts of the recording, one after another.
    """

    def __init__(
        self,
        model: reference.WhisperModel,
        samples: Samples,
        chunks: Sequence[Sequence[Speech]],
    ) -> None:
        self._model = model
        self._samples = samples
        self._chunks = chunks

    def __len__(self) -> int:
        return len(self._chunks)

    def __getitem__(self, batch: slice) -> np.ndarray:
        """Of a batch, ``[chunks, n_mels, 3000]``."""
        return np.stack([pad_or_trim(self._of(chunk)) for chunk in self._chunks[batch]])

    def beginning(self, frames: int) -> np.ndarray:
        """Of the first chunks, ``[n_mels, frames]`` or more, or all; then one frame of silence."""
        several: list[np.ndarray] = []
        count = 0
        for chunk in self._chunks:
            if count >= frames:
                break
            several.append(self._of(chunk))
            count += several[-1].shape[1]
        silence = np.full((self._model.model.n_mels, 1), -1.5, np.float32)
        return np.concatenate([*several, silence], axis=1)

    def _of(self, chunk: Sequence[Speech]) -> np.ndarray:
        parts = [self._samples[speech["start"] : speech["end"]] for speech in chunk]
        samples = parts[0] if len(parts) == 1 else np.concatenate([_NO_SAMPLES, *parts])
        features: np.ndarray = self._model.feature_extractor(samples)[..., :-1]
        return features


_NO_SAMPLES = np.empty(0, np.float32)
_SIGNATURE = inspect.signature(reference.BatchedInferencePipeline.transcribe)
_OF_A_BATCH = {
    "condition_on_previous_text": False,
    "hallucination_silence_threshold": None,
    "max_initial_timestamp": 0.0,
    "prompt_reset_on_temperature": 0.5,
}
"""Options that the reference does not take from the caller here."""


def _vad_options(given: VadOptions | dict[str, Any] | None, most: float) -> VadOptions:
    """How speech is found, at most so many seconds of it without a cut."""
    if given is None:
        given = {"min_silence_duration_ms": 160}
    if isinstance(given, dict):
        return VadOptions(**{**given, "max_speech_duration_s": most})
    return given


def _chunks(speeches: Sequence[Speech], most: int) -> list[list[Speech]]:
    """Puts speech together to chunks of so many samples at most, as `collect_chunks` does."""
    chunks: list[list[Speech]] = [[]]
    samples = 0
    for speech in speeches:
        length = speech["end"] - speech["start"]
        if samples + length > most:
            chunks.append([])
            samples = 0
        chunks[-1].append(speech)
        samples += length
    return chunks


def _chunks_metadata(chunks: Sequence[Sequence[Speech]], rate: int) -> list[dict[str, Any]]:
    """What `forward` is told of chunks: where they begin in all speech, and how long they are."""
    metadata = []
    before = 0
    for index, chunk in enumerate(chunks):
        samples = sum(speech["end"] - speech["start"] for speech in chunk)
        # The reference lists the speech that begins a chunk with the first chunk only.
        listed = list(chunk[1:] if index else chunk)
        metadata.append({"offset": before / rate, "duration": samples / rate, "segments": listed})
        before += samples
    return metadata


def _options(
    given: dict[str, Any], tokenizer: Tokenizer, speeches: Sequence[Speech], multilingual: bool
) -> reference.TranscriptionOptions:
    """The caller's options, and those that a batch has instead."""
    temperature, suppressed = given["temperature"], given["suppress_tokens"]
    several = isinstance(temperature, (list, tuple))
    names = {field.name for field in dataclasses.fields(reference.TranscriptionOptions)}
    options = {name: given[name] for name in names & given.keys()}
    options |= _OF_A_BATCH
    options |= {
        "temperatures": temperature[:1] if several else [temperature],
        "suppress_tokens": suppressed and reference.get_suppressed_tokens(tokenizer, suppressed),
        "clip_timestamps": speeches,
        "multilingual": multilingual,
    }
    return reference.TranscriptionOptions(**options)


watched_like(BatchedInferencePipeline.transcribe, reference.BatchedInferencePipeline.transcribe)
update_wrapper(BatchedInferencePipeline.forward, reference.BatchedInferencePipeline.forward)
