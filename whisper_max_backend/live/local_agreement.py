"""Words that are committed when two decodings in a row agree on them.

Source: LocalAgreement-2 (Macháček et al. 2023, arXiv 2307.14743).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .samples import RATE, Samples
from .window import most_tokens, window_frames
from .words import LiveWord, within

if TYPE_CHECKING:
    from faster_whisper.tokenizer import Tokenizer

_MOST_SHORT_SECONDS = 20
"""Of audio: more is shown as the reference shows it, for there is little to save."""


class LocalAgreement:
    """Transcribes all of the audio again whenever there is more of it."""

    def __init__(self, model: Any, task: str) -> None:
        """Follow a stream with a `WhisperModel` on any device."""
        self._model = model
        self._task = task
        self._committed: list[list[int]] = []  # tokens of each word of the audio
        self._before: list[str] = []  # words of the last decoding that were not committed

    def reset(self) -> None:
        """The audio that is looked at begins anew."""
        self._committed, self._before = [], []

    def cut(self, tokens: int) -> list[int]:
        """The audio of the first committed tokens is gone; returns them."""
        gone: list[int] = []
        while self._committed and len(gone) < tokens:
            gone += self._committed.pop(0)
        return gone

    def decode(
        self,
        audio: Samples,
        start: float,
        context: Sequence[int],
        tokenizer: Tokenizer,
        most_letters: int,
        final: bool,
    ) -> tuple[list[tuple[LiveWord, int]], list[LiveWord]]:
        """New committed words with the number of their tokens, and the tentative ones after them.

        See `AlignAtt.decode`.
        """
        segments, _ = _with_window(self._model, len(audio)).transcribe(
            audio,
            language=tokenizer.language_code,
            task=self._task,
            beam_size=5,
            temperature=0.0,  # two decodings do not agree on what is sampled
            max_new_tokens=most_tokens(len(audio)),
            word_timestamps=True,
            condition_on_previous_text=False,
            initial_prompt=tokenizer.decode(list(context)) if context else None,
        )
        words = [
            LiveWord(
                word.word,
                start + float(word.start),
                start + float(word.end),
                float(word.probability),
            )
            for segment in segments
            for word in segment.words or ()
        ][len(self._committed) :]
        texts = [word.text for word in words]
        agreed = len(words) if final else _common(texts, self._before)
        agreed = min(agreed, within(words, most_letters))
        committed = [(word, len(tokenizer.encode(word.text))) for word in words[:agreed]]
        self._committed += [tokenizer.encode(word.text) for word, _ in committed]
        self._before = texts[agreed:]
        return committed, words[agreed:]


def _with_window(model: Any, samples: int) -> Any:
    """The same model, but its encoder sees a window for so much audio; CTranslate2's as it is."""
    if not hasattr(model.model, "follow") or samples > _MOST_SHORT_SECONDS * RATE:
        return model
    frames = 2 * window_frames(samples)  # the encoder halves those of the features
    windowed = copy.copy(model)

    def encode(features: np.ndarray) -> Any:
        window = features[:, :frames].copy()
        content = 1 + int(np.flatnonzero(window.any(0))[-1])
        window[:, content:] = window[:, :content].min()  # silence; zeros, as they come, are none
        return model.encode(window)

    windowed.encode = encode
    return windowed


def _common(texts: Sequence[str], others: Sequence[str]) -> int:
    """How many texts are the same from the beginning on."""
    for count, (text, other) in enumerate(zip(texts, others, strict=False)):
        if text != other:
            return count
    return min(len(texts), len(others))
