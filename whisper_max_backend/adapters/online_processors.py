"""The online processors of whisper_streaming and SimulStreaming, as their programs call them.

Source: https://github.com/ufal/whisper_streaming, https://github.com/ufal/SimulStreaming
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..live import LiveTranscriber, LiveWord
from ..live.samples import RATE, Samples
from ..live.words import joined

if TYPE_CHECKING:
    from faster_whisper import WhisperModel


class _Processor:
    SAMPLING_RATE = RATE

    def __init__(self, model: WhisperModel, **options: Any) -> None:
        """Begin a stream.

        Args:
            model: Of this package. Processors share it; each is one stream.
            options: Of `LiveTranscriber`. The programs wait for a chunk themselves, so `min_chunk`
                is 0.1 seconds if not given.
        """
        self._model = model
        self._options = {"min_chunk": 0.1, **options}
        self.init()

    def init(self, offset: float | None = None) -> None:
        """Begin anew; the first sample comes `offset` seconds after the program began."""
        self._live = LiveTranscriber(self._model, **self._options)
        self._offset = offset or 0.0
        self._chunks: list[Samples] = []

    def insert_audio_chunk(self, audio: Samples) -> None:
        """Take audio: float32 ``[samples]`` at 16 kHz."""
        self._chunks.append(np.asarray(audio, np.float32))

    def _inserted(self) -> list[LiveWord]:
        """The words that are new with what was inserted."""
        chunks, self._chunks = self._chunks, []
        return self._live.push(np.concatenate([np.empty(0, np.float32), *chunks])).committed

    def _rest(self) -> list[LiveWord]:
        """These, and the words that are left."""
        return [*self._inserted(), *self._live.finish().committed]


class WhisperStreamingProcessor(_Processor):
    """In place of `OnlineASRProcessor` of whisper_streaming."""

    def process_iter(self) -> tuple[float | None, float | None, str]:
        """The committed text that is new, after its start and end in seconds."""
        return self._result(self._inserted())

    def finish(self) -> tuple[float | None, float | None, str]:
        """All that is left, in the same form."""
        return self._result(self._rest())

    def _result(self, words: list[LiveWord]) -> tuple[float | None, float | None, str]:
        if not words:
            return None, None, ""
        return words[0].start + self._offset, words[-1].end + self._offset, joined(words)


class SimulStreamingProcessor(_Processor):
    """In place of both `SimulWhisperASR` and `SimulWhisperOnline` of SimulStreaming."""

    def warmup(self, audio: Samples) -> None:
        """Decode some audio, which is no part of the stream."""
        live = LiveTranscriber(self._model, **self._options)
        live.push(audio)
        live.finish()

    def process_iter(self) -> dict[str, Any]:
        """The committed text that is new, with times in seconds; empty if there is none."""
        return self._result(self._inserted())

    def finish(self) -> dict[str, Any]:
        """All that is left, in the same form."""
        return self._result(self._rest())

    def _result(self, words: list[LiveWord]) -> dict[str, Any]:
        if not words:
            return {}
        timed = [
            {"start": word.start + self._offset, "end": word.end + self._offset, "text": word.text}
            for word in words
        ]
        start, end = timed[0]["start"], timed[-1]["end"]
        return {"start": start, "end": end, "text": joined(words), "words": timed}
