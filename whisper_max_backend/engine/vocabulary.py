"""The tokens of a model and what Whisper's decoding needs to know of them."""

from __future__ import annotations

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
        self._ids = dict(zip(self._tokens, range(len(self._tokens)), strict=True))
        if len(self._ids) != len(self._tokens):  # the first of equal tokens has the id
            self._ids = {}
            for index, token in enumerate(self._tokens):
                self._ids.setdefault(token, index)
        if END_OF_TEXT not in self._ids:  # the reference's unknown token is always there
            self._ids[END_OF_TEXT] = len(self._tokens)
            self._tokens.append(END_OF_TEXT)
        self.eot = self._ids[END_OF_TEXT]
        self.sot = self.to_id(START_OF_TRANSCRIPT)
        self.no_timestamps = self.to_id(NO_TIMESTAMPS)
        self.no_speech = next((self._ids[name] for name in NO_SPEECH if name in self), self.eot)
        self.timestamp_begin = self.no_timestamps + 1
        self.is_multilingual = self.to_id("") != self.eot
        self.num_languages = self.no_speech - self.sot - 5

    @property
    def size(self) -> int:
        return len(self._tokens)

    def __contains__(self, token: str) -> bool:
        return token in self._ids

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self._tokens == other._tokens

    __hash__ = None  # type: ignore[assignment]  # compared by its tokens, never a key

    def __repr__(self) -> str:
        kind = "multilingual" if self.is_multilingual else "English-only"
        return f"Vocabulary({kind}, {self.size} tokens, {self.num_languages} languages)"

    def to_id(self, token: str) -> int:
        """The token's id; that of <|endoftext|> for an unknown one."""
        return self._ids.get(token, self.eot)

    def to_token(self, index: int) -> str:
        """The token with this id. ValueError when there is none."""
        if not 0 <= index < self.size:
            raise ValueError(
                f"Invalid token ID {index}: valid IDs are between 0 and {self.size - 1}"
            )
        return self._tokens[index]

    def missing(self) -> list[str]:
        """Special tokens that decoding cannot do without and that are not there or out of order."""
        required = [END_OF_TEXT, START_OF_TRANSCRIPT, NO_TIMESTAMPS]
        absent = [token for token in required if token not in self]
        if not any(name in self for name in NO_SPEECH):
            absent.append(NO_SPEECH[0])
        if not absent and not self.sot < self.no_speech < self.no_timestamps:
            absent = ["tokens in Whisper's order"]
        return absent
