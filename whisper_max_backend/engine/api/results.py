"""What the engine returns: encoder outputs, transcripts, alignments.

The classes carry the names and attributes of those in ``ctranslate2.models``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeVar

from .arrays import ArrayView, EncoderOutput

__all__ = [
    "ArrayView",
    "EncoderOutput",
    "WhisperAlignmentResult",
    "WhisperGenerationResult",
    "WhisperGenerationResultAsync",
]


Result = TypeVar("Result", covariant=True)


class Future(Protocol[Result]):
    """A result that is being computed."""

    def result(self) -> Result:
        """Block until it is there; raises the exception that there is instead."""

    def done(self) -> bool:
        """Whether there is a result or an exception."""


@dataclass(frozen=True, slots=True, eq=False)
class WhisperGenerationResult:
    """A generation result from the Whisper model.

    Attributes:
        sequences: Generated sequences of tokens, best first; the prompt is not included.
        sequences_ids: The same as token ids.
        scores: Score of each sequence; empty if ``return_scores`` was disabled.
        logits: For each sequence, float32 ``[n_vocab]`` for each token; empty if
            ``return_logits_vocab`` was disabled.
        no_speech_prob: Probability of the no-speech token; 0 if ``return_no_speech_prob`` was
            disabled.
    """

    sequences: list[list[str]]
    sequences_ids: list[list[int]]
    scores: list[float]
    logits: list[list[ArrayView]]
    no_speech_prob: float


class WhisperGenerationResultAsync:
    """Asynchronous wrapper around a result object."""

    def __init__(self, batch: Future[list[WhisperGenerationResult]], index: int) -> None:
        """Take the place of item ``index`` of a batch that is being computed."""
        self._batch = batch
        self._index = index

    def result(self) -> WhisperGenerationResult:
        """Block until the result is available and return it.

        An exception that was raised when computing the result is raised here, at every call.
        """
        return self._batch.result()[self._index]

    def done(self) -> bool:
        """Whether the result is available."""
        return self._batch.done()


@dataclass(frozen=True, slots=True, eq=False)
class WhisperAlignmentResult:
    """An alignment result from the Whisper model.

    Attributes:
        alignments: Pairs of text index and time index (1 step is 20 ms), in the order of the path.
        text_token_probs: Probability of each text token among the text tokens.
    """

    alignments: list[tuple[int, int]]
    text_token_probs: list[float]
