"""The tokens of a model and what Whisper's decoding needs to know of them."""

from __future__ import annotations

import functools
from collections.abc import Sequence

END_OF_TEXT = "<|endoftext|>"
START_OF_TRANSCRIPT = "<|startoftranscript|>"
NO_TIMESTAMPS = "<|notimestamps|>"
NO_SPEECH = ("<|nospeech|>", "<|nocaptions|>")  # OpenAI's name and its older one


class Vocabulary:
    """Tokens by id and ids by token, with ctranslate2's `Vocabulary` and `WhisperReplica` rules.

    Whisper's order: text tokens, <|endoftext|>, <|startoftranscript|>, languages, <|translate|>,
    <|transcribe|>, <|startoflm|>, <|startofprev|>, <|nospeech|>, <|notimestamps|>, timestamps.
    """

    def __init__(self, tokens: Sequence[str]) -> None:
        self._tokens = list(tokens)
        if END_OF_TEXT not in self._tokens:  # the reference's unknown token is always there
            self._tokens.append(END_OF_TEXT)
        self.eot = self._tokens.index(END_OF_TEXT)
        self.sot = self._find(START_OF_TRANSCRIPT)
        self.no_timestamps = self._find(NO_TIMESTAMPS)
        found = (self._find(name) for name in NO_SPEECH)
        self.no_speech = next((index for index in found if index != self.eot), self.eot)
        self.timestamp_begin = self.no_timestamps + 1
        self.is_multilingual = self._find("") != self.eot
        self.num_languages = self.no_speech - self.sot - 5

    @property
    def size(self) -> int:
        return len(self._tokens)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self._tokens == other._tokens

    __hash__ = None  # type: ignore[assignment]  # compared by its tokens, never a key

    def __repr__(self) -> str:
        kind = "multilingual" if self.is_multilingual else "English-only"
        return f"Vocabulary({kind}, {self.size} tokens, {self.num_languages} languages)"

    def to_id(self, token: str) -> int:
        """The token's id; that of <|endoftext|> for an unknown one."""
        return self._ids.get(token, self.eot)

    @functools.cached_property
    def _ids(self) -> dict[str, int]:
        """Of all tokens; the first of equal ones has the id. Made when a prompt is a text, since
        it takes milliseconds."""
        numbered = zip(reversed(self._tokens), range(self.size - 1, -1, -1), strict=True)
        return dict(numbered)

    def _find(self, token: str) -> int:
        """As `to_id`, of one of the few that every model needs."""
        try:
            return self._tokens.index(token)
        except ValueError:
            return self.eot

    def to_token(self, index: int) -> str:
        """The token with this id. ValueError when there is none."""
        if not 0 <= index < self.size:
            raise ValueError(
                f"Invalid token ID {index}: valid IDs are between 0 and {self.size - 1}"
            )
        return self._tokens[index]

    def missing(self) -> list[str]:
        """Special tokens that decoding cannot do without and that are not there or out of order."""
        special = {
            START_OF_TRANSCRIPT: self.sot,
            NO_SPEECH[0]: self.no_speech,
            NO_TIMESTAMPS: self.no_timestamps,
        }
        absent = [token for token, index in special.items() if index == self.eot]
        if not absent and not self.sot < self.no_speech < self.no_timestamps:
            absent = ["tokens in Whisper's order"]
        return absent
