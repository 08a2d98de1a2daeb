"""An engine for RealtimeSTT: its recorder shows the words of a live stream while somebody speaks.

Source: https://github.com/KoljaB/RealtimeSTT (custom transcription engines)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from RealtimeSTT.engines import (
    BaseEngine,
    StreamingTranscriptionSession,
    TranscriptionEngineConfig,
    TranscriptionInfo,
    TranscriptionResult,
)

from ..live import LiveTranscriber, LiveWord
from ..live.samples import RATE, Samples
from ..live.words import joined

if TYPE_CHECKING:
    from faster_whisper import WhisperModel


class LiveEngine(BaseEngine):
    """What `AudioToTextRecorder` takes as `transcription_executor` and
    `realtime_transcription_executor`: one model for both."""

    engine_name = "whisper_max_live"
    supports_streaming = True

    def __init__(self, model: WhisperModel, **options: Any) -> None:
        """Share a model.

        Args:
            model: Of this package.
            options: Of `LiveTranscriber`, but for the language, which the recorder names.
        """
        super().__init__(TranscriptionEngineConfig(model="", vad_filter=False))
        self._model = model
        self._options = options

    def transcribe(
        self,
        audio: Samples,
        language: str | None = None,
        use_prompt: bool = True,
        word_timestamps: bool = False,
    ) -> TranscriptionResult:
        """The text of a whole utterance, which the recorder returns in the end."""
        segments, info = self._model.transcribe(
            audio, language=language, word_timestamps=word_timestamps
        )
        found = list(segments)
        words = [
            LiveWord(word.word, word.start, word.end, word.probability)
            for segment in found
            for word in segment.words or ()
        ]
        language_info = TranscriptionInfo(info.language, info.language_probability)
        return _result("".join(segment.text for segment in found), language_info, words)

    def create_streaming_session(
        self, language: str | None = None, use_prompt: bool = True
    ) -> LiveSession:
        """A stream for one utterance."""
        return LiveSession(self._model, {**self._options, "language": language or None})


class LiveSession(StreamingTranscriptionSession):
    """One utterance while it is spoken."""

    def __init__(self, model: WhisperModel, options: dict[str, Any]) -> None:
        self._model = model
        self._options = options
        self.reset()

    def reset(self) -> None:
        """Begin anew."""
        self._live = LiveTranscriber(self._model, **self._options)
        self._committed: list[LiveWord] = []
        self._tentative: list[LiveWord] = []

    def accept_audio(self, audio: Samples, sample_rate: int | None = None) -> None:
        """Take a piece, and decode when there is a chunk of new audio."""
        update = self._live.push(audio, sample_rate or RATE)
        self._committed += update.committed
        self._tentative = update.tentative

    def get_result(self) -> TranscriptionResult:
        """All words so far; the last ones may change unless the utterance is finished."""
        words = [*self._committed, *self._tentative]
        return _result(joined(words), TranscriptionInfo(self._options["language"]), words)

    def finish(self) -> TranscriptionResult:
        """All words of the utterance."""
        self._committed += self._live.finish().committed
        self._tentative = []
        return self.get_result()


def _result(text: str, info: TranscriptionInfo, words: list[LiveWord]) -> TranscriptionResult:
    timed = [{"word": word.text, "start": word.start, "end": word.end} for word in words]
    return TranscriptionResult(text.strip(), info, {"words": timed} if timed else {})
