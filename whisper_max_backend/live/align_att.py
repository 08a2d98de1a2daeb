"""Words that are committed as soon as no more audio can change them.

Source: AlignAtt (Papi et al. 2023, arXiv 2305.11408), and Simul-Whisper (Wang et al. 2024,
arXiv 2406.10052), which follows Whisper's alignment heads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..guards.loops import repeated
from .samples import RATE, Samples
from .window import FRAME_SECONDS, most_tokens, window_frames
from .words import LiveWord, within

if TYPE_CHECKING:
    from faster_whisper.tokenizer import Tokenizer

    from ..engine.search.follow import FollowedToken

_BEFORE, _AFTER = 0.15, 0.1
"""A word begins and ends so many seconds around what its tokens attend to."""
_FIRST_SECONDS = 1.6
"""Of audio that the first words of an utterance need: with less, the model invents some."""
_SURE = 0.5
"""The confidence of a word that needs no more audio behind it than others."""
_UNSURE_SECONDS = 1.5
"""Of audio that a word of less confidence needs behind it."""
_TENTATIVE_SECONDS = 0.1
"""Before the end of the audio nothing is guessed."""


class AlignAtt:
    """Decides by the attention of the decoder, in the very steps that make the text."""

    def __init__(self, model: Any, hold_back: float) -> None:
        """Follow a stream.

        Args:
            model: A `WhisperModel` of this package.
            hold_back: Seconds before the end of the audio whose words wait for more.
        """
        self._model = model
        self._hold_back = hold_back
        self._committed: list[int] = []  # of the audio that is looked at

    def reset(self) -> None:
        """The audio that is looked at begins anew."""
        self._committed = []

    def cut(self, tokens: int) -> list[int]:
        """The audio of the first committed tokens is gone; returns them."""
        gone, self._committed = self._committed[:tokens], self._committed[tokens:]
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

        Args:
            audio: At most 30 seconds.
            start: When it begins, in seconds since the stream did.
            context: Tokens of what was said before.
            tokenizer: Of the language that is spoken.
            most_letters: Of the words that are committed.
            final: Whether nothing follows: all words are committed.
        """
        content = max(1, len(audio) // int(RATE * FRAME_SECONDS))
        features = self._model.feature_extractor(_window(audio), padding=0)
        most = len(self._committed) + most_tokens(len(audio))
        until = content + 1 if final else content - round(_TENTATIVE_SECONDS / FRAME_SECONDS)
        before = [tokenizer.sot_prev, *context] if context else []
        start_tokens = [*before, *tokenizer.sot_sequence, tokenizer.no_timestamps]
        followed = self._model.model.follow(
            features[None],
            [*start_tokens, *self._committed],
            content=content,
            until=max(0, until),
            # The text has half of it, and what the start leaves.
            max_length=max(2 * most, most + len(start_tokens)),
        )
        tokens = _without_loop(followed.tokens)
        words = _words(tokens, tokenizer, start)
        settled = len(words)
        if not final:
            settled = self._settled(words, followed.ended, start, start + len(audio) / RATE)
        committed = words[: min(settled, within([word for word, _ in words], most_letters))]
        self._committed += [token.id for token in tokens[: sum(n for _, n in committed)]]
        return committed, [word for word, _ in words[len(committed) :]]

    def _settled(
        self, words: Sequence[tuple[LiveWord, int]], ended: bool, start: float, end: float
    ) -> int:
        """How many words stay as they are when more is heard, of audio from `start` to `end`.

        The last one may be the beginning of a longer one, unless the text ended with it; and the
        punctuation at the end may be another.
        """
        if not self._committed and end - start < _FIRST_SECONDS:
            return 0
        count = 0
        for word, _ in words if ended else words[:-1]:
            behind = end - (word.end - _AFTER)
            if behind < (self._hold_back if word.confidence >= _SURE else _UNSURE_SECONDS):
                break
            count += 1
        while count > 0 and not any(c.isalnum() for c in words[count - 1][0].text):
            count -= 1
        return count


def _window(audio: Samples) -> Samples:
    """The audio, followed by silence."""
    length = round(window_frames(len(audio)) * FRAME_SECONDS * RATE)
    return np.pad(audio, (0, length - len(audio)))


def _words(
    tokens: Sequence[FollowedToken], tokenizer: Tokenizer, start: float
) -> list[tuple[LiveWord, int]]:
    """Words, each with the number of its tokens."""
    texts, ids = tokenizer.split_to_word_tokens([token.id for token in tokens])
    words: list[tuple[LiveWord, int]] = []
    first, earliest = 0, 0.0
    for text, own in zip(texts, ids, strict=True):
        count = len(own)
        of_word = tokens[first : first + count]
        first += count
        if not of_word:
            continue
        begin = max(earliest, of_word[0].frame * FRAME_SECONDS - _BEFORE)
        end = max(begin, of_word[-1].frame * FRAME_SECONDS + _AFTER)
        earliest = end
        score = sum(token.score for token in of_word) / count
        words.append((LiveWord(text, start + begin, start + end, math.exp(score)), count))
    return words


def _without_loop(tokens: list[FollowedToken]) -> list[FollowedToken]:
    """Up to the first phrase that is said again and again, which is kept once."""
    for length, start, _ in repeated([token.id for token in tokens]):
        return tokens[: start + length]
    return tokens
