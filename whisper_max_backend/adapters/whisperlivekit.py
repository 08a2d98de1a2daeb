"""Live speech in WhisperLiveKit: its servers, pages and protocols, with this package's streams.

Source: https://github.com/QuentinFuxa/WhisperLiveKit
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from whisperlivekit import audio_processor, core
from whisperlivekit.timed_objects import ASRToken, ChangeSpeaker, Transcript

from ..live import LiveTranscriber, LiveWord
from ..live.samples import RATE, Samples

if TYPE_CHECKING:
    from faster_whisper import WhisperModel

PAUSE_SECONDS = 0.5
"""Of silence are decoded when one begins: enough to commit the words before it."""
LONG_SECONDS = 2.0
"""Of a silence are decoded at most: enough to end an utterance."""


def install(model: WhisperModel, **options: Any) -> None:
    """Have both of WhisperLiveKit's Whisper policies, in this process, replaced by live streams.

    Its engines that are built from now on load no Whisper model of their own; their other backends
    stay.

    Args:
        model: Of this package, which all clients share.
        options: Of `LiveTranscriber`, but for language and task, which WhisperLiveKit names.
    """
    backend = LiveBackend(model, options)
    stock = audio_processor.online_factory

    def build_backend(**_: Any) -> LiveBackend:
        return backend

    def build_processor(args: Any, asr: Any, language: str | None = None) -> Any:
        if asr is not backend:
            return stock(args, asr, language=language)
        spoken = language or args.lan
        task = "translate" if args.direct_english_translation else "transcribe"
        return LiveProcessor(backend, None if spoken == "auto" else spoken, task)

    core.SimulStreamingASR = core.backend_factory = build_backend
    audio_processor.online_factory = build_processor


class LiveBackend:
    """What an engine of WhisperLiveKit holds in place of a model of its own."""

    sep = ""
    """Between words, which have their spaces."""

    def __init__(self, model: WhisperModel, options: dict[str, Any]) -> None:
        self.model = model
        self.options = options


class LiveProcessor:
    """One stream, with the methods of WhisperLiveKit's `OnlineASRProcessor`.

    It gets no silence, so times are those of the audio that came, and the silence that did not.
    """

    SAMPLING_RATE = RATE

    def __init__(self, asr: LiveBackend, language: str | None, task: str = "transcribe") -> None:
        self.asr = asr
        self._live = LiveTranscriber(asr.model, language=language, task=task, **asr.options)
        self._chunks: list[Samples] = []
        self._silence = 0.0  # seconds that were left out, less those that were decoded
        self._pause = 0.0  # seconds decoded of the silence that goes on
        self._end = 0.0  # of the audio, in seconds of the stream
        self._tentative: list[ASRToken] = []

    def insert_audio_chunk(self, audio: Samples, audio_stream_end_time: float) -> None:
        """Take audio: float32 ``[samples]`` at 16 kHz, and the time at its end."""
        self._chunks.append(audio)
        self._end = audio_stream_end_time

    def process_iter(self) -> tuple[list[ASRToken], float]:
        """The committed words that are new, and until when audio was looked at."""
        chunks, self._chunks = self._chunks, []
        update = self._live.push(np.concatenate([np.empty(0, np.float32), *chunks]))
        self._tentative = self._tokens(update.tentative)
        return self._tokens(update.committed), self._end

    def finish(self) -> tuple[list[ASRToken], float]:
        """All words that are left."""
        words, _ = self.process_iter()
        words += self._tokens(self._live.finish().committed)
        self._tentative = []
        return words, self._end

    def start_silence(self) -> tuple[list[ASRToken], float]:
        """The words that are committed with the silence behind them; the utterance may go on."""
        self._pause = PAUSE_SECONDS
        self._chunks.append(np.zeros(int(PAUSE_SECONDS * RATE), np.float32))
        return self.process_iter()

    def end_silence(self, silence_duration: float, offset: float) -> None:
        """Know how long it was: a long one ends the utterance."""
        rest = max(0.0, min(silence_duration, LONG_SECONDS) - self._pause)
        self._chunks.append(np.zeros(int(rest * RATE), np.float32))
        self._silence += silence_duration - self._pause - rest
        self._end += silence_duration
        self._pause = 0.0

    def new_speaker(self, change_speaker: ChangeSpeaker) -> tuple[list[ASRToken], float]:
        """All words of the one who spoke before."""
        return self.finish()

    def get_buffer(self) -> Transcript:
        """The words that may still change."""
        return Transcript.from_tokens(self._tentative, sep=self.asr.sep)

    def _tokens(self, words: list[LiveWord]) -> list[ASRToken]:
        return [
            ASRToken(
                word.start + self._silence,
                word.end + self._silence,
                word.text,
                probability=word.confidence,
            )
            for word in words
        ]
