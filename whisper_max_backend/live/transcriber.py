"""A stream of speech: takes audio as it comes, gives words that stay."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from ..guards.no_speech import LETTERS_A_SECOND
from ..guards.words import letters
from .align_att import AlignAtt
from .local_agreement import LocalAgreement
from .samples import RATE, Resampler, Samples
from .speech import SpeechDetector
from .window import WINDOW_SECONDS
from .words import LiveWord, Update, joined, said

if TYPE_CHECKING:
    from collections.abc import Sequence

    from faster_whisper import WhisperModel
    from faster_whisper.tokenizer import Tokenizer

_log = logging.getLogger("whisper_max_backend")

Policy = Literal["alignatt", "local-agreement"]

MOST_SECONDS = 12
"""Of audio that is kept: then its beginning is cut off, up to a committed word's end."""
KEPT_SECONDS = 6
"""Of audio that are left then, or a little more."""
SILENCE_SECONDS = 0.6
"""Of silence end an utterance: all of it is committed."""
LEAST_SPEECH_SECONDS = 0.1
"""Of speech, below which nothing is decoded."""
BEFORE_SPEECH_SECONDS = 0.5
"""Of silence are kept before speech."""
CONTEXT_TOKENS = 60
"""Of the text before, which the model gets as its prompt."""
LANGUAGE_SECONDS = 3.0
"""Of audio that the language is detected from, unless an utterance is shorter."""


class _Policy(Protocol):
    def reset(self) -> None: ...

    def cut(self, tokens: int) -> list[int]: ...

    def decode(
        self,
        audio: Samples,
        start: float,
        context: Sequence[int],
        tokenizer: Tokenizer,
        most_letters: int,
        final: bool,
    ) -> tuple[list[tuple[LiveWord, int]], list[LiveWord]]: ...


class LiveTranscriber:
    """One stream. Several may use one model, each in a thread of its own."""

    def __init__(
        self,
        model: WhisperModel,
        policy: Policy = "alignatt",
        *,
        language: str | None = None,
        task: str = "transcribe",
        min_chunk: float = 1.0,
        hold_back: float = 0.4,
    ) -> None:
        """Wait for audio.

        Args:
            model: Of this package.
            policy: ``alignatt`` commits a word when the decoder attends to audio before the end;
                it needs a model of this package. ``local-agreement`` commits what two decodings in
                a row agree on.
            language: Spoken; if not given, it is detected from the first seconds of speech.
            task: ``transcribe``, or ``translate`` into English.
            min_chunk: Seconds of new audio that a decoding waits for.
            hold_back: Seconds before the end of the audio whose words are not committed yet.

        Raises:
            ValueError: An unknown policy, language or task, or a time out of range.
        """
        if not 0.1 <= min_chunk <= 10:
            raise ValueError(f"min_chunk must be from 0.1 to 10 seconds, got {min_chunk}")
        if not 0 <= hold_back <= 5:
            raise ValueError(f"hold_back must be from 0 to 5 seconds, got {hold_back}")
        self._model = model
        self._task = task
        self._min_chunk = min_chunk
        self._policy: _Policy
        if policy == "alignatt":
            if not hasattr(model.model, "follow"):
                raise ValueError(
                    "the policy alignatt needs a model of this package: load one, or choose "
                    "local-agreement"
                )
            self._policy = AlignAtt(model, hold_back)
        elif policy == "local-agreement":
            self._policy = LocalAgreement(model, task)
        else:
            raise ValueError(f"unknown policy {policy!r}: choose alignatt or local-agreement")
        self._tokenizer: Tokenizer | None = None
        if language is not None or not model.model.is_multilingual:
            self._tokenizer = self._tokenizer_of(language or "en")
        self._resampler = Resampler()
        self._speech = SpeechDetector()
        self._pending: list[Samples] = []
        self._audio: Samples = np.empty(0, np.float32)
        self._start = 0.0  # of this audio, in seconds since the stream began
        self._received = 0.0
        self._spoken = 0.0  # seconds of speech in the utterance
        self._letters = 0  # committed, of the utterance
        self._settled = 0.0  # until when everything is committed, or silence
        self._words: list[tuple[LiveWord, int]] = []  # committed, of the audio
        self._last_end = 0.0  # of the words
        self._context: list[int] = []
        self._tentative: list[LiveWord] = []

    def push(self, samples: Any, sampling_rate: int = RATE) -> Update:
        """Take the next piece of audio.

        Args:
            samples: ``[samples]`` or ``[channels, samples]``, floats from -1 to 1 or int16.
            sampling_rate: Samples a second.

        Returns:
            The words that are new. Nothing is decoded before there is a chunk of new audio.

        Raises:
            ValueError: Samples of another shape or type, or that are not numbers. The stream goes
                on with the next piece.
        """
        self._receive(self._resampler.push(samples, sampling_rate))
        if sum(map(len, self._pending)) < self._min_chunk * RATE:
            return self._update([])
        return self._update(self._catch_up())

    def finish(self) -> Update:
        """The end of the stream: all words that are left."""
        self._receive(self._resampler.rest())
        committed = self._catch_up()
        committed += self._end_utterance()
        self._settled = self._received
        return self._update(committed)

    def _receive(self, samples: Samples) -> None:
        self._pending.append(samples)
        self._received += len(samples) / RATE

    def _update(self, committed: list[LiveWord]) -> Update:
        behind = max(0.0, self._received - self._settled)
        return Update(committed, list(self._tentative), behind)

    def _catch_up(self) -> list[LiveWord]:
        """Takes in what is pending, as much at a time as a window has room for."""
        new = np.concatenate([np.empty(0, np.float32), *self._pending])
        self._pending = []
        committed: list[LiveWord] = []
        while len(new):
            room = int((WINDOW_SECONDS - 1) * RATE) - len(self._audio)
            piece, new = new[:room], new[room:]
            self._spoken += self._speech.push(piece)
            self._audio = np.concatenate([self._audio, piece])
            committed += self._advance()
        return committed

    def _advance(self) -> list[LiveWord]:
        """Decodes the audio, unless it is silence, and cuts off what is done with."""
        end = self._start + len(self._audio) / RATE
        is_silent = end - self._speech.heard >= SILENCE_SECONDS
        if self._spoken < LEAST_SPEECH_SECONDS:
            self._spoken = 0.0 if is_silent else self._spoken
            self._forget_until(end - BEFORE_SPEECH_SECONDS)
            self._settled = end
            return []
        if is_silent:
            return self._end_utterance()
        committed = self._decode(final=False)
        if len(self._audio) > MOST_SECONDS * RATE:
            self._cut(end - KEPT_SECONDS)
        if len(self._audio) > (WINDOW_SECONDS - 2) * RATE:  # nothing could be cut
            committed += self._end_utterance()
        return committed

    def _decode(self, final: bool) -> list[LiveWord]:
        if self._tokenizer is None:
            if len(self._audio) < LANGUAGE_SECONDS * RATE and not final:
                return []
            language, _, _ = self._model.detect_language(self._audio)
            self._tokenizer = self._tokenizer_of(language)
        words, self._tentative = self._policy.decode(
            self._audio,
            self._start,
            self._context,
            self._tokenizer,
            int(self._spoken * LETTERS_A_SECOND) - self._letters,
            final,
        )
        if final:
            before = self._words[-1][0] if self._words else None
            count = said([word for word, _ in words], before, self._speech.heard)
            self._tentative = [*(word for word, _ in words[count:]), *self._tentative]
            words = words[:count]
        committed = []
        for word, _ in words:  # what times are, a decoding sees better than the one before
            start = max(word.start, self._last_end)
            self._last_end = max(start, word.end)
            committed.append(replace(word, start=start, end=self._last_end))
            self._letters += letters(word.text)
        self._words += zip(committed, (count for _, count in words), strict=True)
        if words:
            self._settled = max(self._settled, self._last_end)
        return committed

    def _end_utterance(self) -> list[LiveWord]:
        """Commits all there is, and begins anew behind it."""
        end = self._start + len(self._audio) / RATE
        committed = self._decode(final=True) if self._spoken >= LEAST_SPEECH_SECONDS else []
        if self._tentative:
            _log.info(
                "Left out at %.1f s: %r. %.2f s of speech are heard there",
                self._start,
                joined(self._tentative),
                self._spoken,
            )
        self._remember(sum(count for _, count in self._words))
        self._policy.reset()
        self._words, self._tentative = [], []
        self._spoken, self._letters = 0.0, 0
        self._forget_until(max(end - BEFORE_SPEECH_SECONDS, self._speech.heard))
        self._settled = end
        return committed

    def _cut(self, wanted: float) -> None:
        """Cuts the audio behind the committed word that ends last before a time."""
        count = sum(1 for word, _ in self._words if word.end <= wanted)
        if count == 0:
            return
        time = self._words[count - 1][0].end
        self._remember(sum(n for _, n in self._words[:count]))
        self._words = self._words[count:]
        self._forget_until(time)

    def _remember(self, tokens: int) -> None:
        """The first committed tokens become the text before."""
        self._context = [*self._context, *self._policy.cut(tokens)][-CONTEXT_TOKENS:]

    def _forget_until(self, time: float) -> None:
        samples = max(0, min(len(self._audio), round((time - self._start) * RATE)))
        self._audio = self._audio[samples:]
        self._start += samples / RATE

    def _tokenizer_of(self, language: str) -> Tokenizer:
        from faster_whisper.tokenizer import Tokenizer

        model = self._model
        return Tokenizer(model.hf_tokenizer, model.model.is_multilingual, self._task, language)
