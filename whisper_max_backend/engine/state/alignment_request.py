"""What is asked of a decoder for a batch of alignments, as the graphs of both devices take it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..search.protocol import Float32Array, Int32Array

Path = list[tuple[int, int]]
"""Pairs of text index and encoder frame."""


@dataclass(frozen=True, eq=False)
class AlignmentRequest:
    """Texts whose tokens are to be found in the audio.

    Attributes:
        tokens: ``[items, T]``: start sequence, <|notimestamps|>, text, <|endoftext|>, padding.
        lengths: Tokens of each item.
        frames: Frames of each item that are not padding.
        heads: The alignment heads, as (layer, head).
        start_length: Tokens of the start sequence.
        median_filter_width: Of the filter over frames.
        eot: Probabilities are over the ids below it.
    """

    tokens: Int32Array
    lengths: Int32Array
    frames: Int32Array
    heads: Sequence[tuple[int, int]]
    start_length: int
    median_filter_width: int
    eot: int

    @property
    def sorted_heads(self) -> Int32Array:
        """``[heads, 2]`` in the order of the layers."""
        return np.array(sorted(self.heads), np.int32)

    @property
    def most_frames(self) -> int:
        """Of an item, at least one."""
        return max(1, int(self.frames.max()))

    @property
    def weight_sizes(self) -> Int32Array:
        """``[items, 3]``: tokens, tokens that the weights are normalised over, frames."""
        uniform = bool((self.frames == self.frames[0]).all())
        longest = self.tokens.shape[1]
        normalized = np.full_like(self.lengths, longest) if uniform else self.lengths
        return np.stack([self.lengths, normalized, self.frames], 1).astype(np.int32)

    @property
    def matrices(self) -> Int32Array:
        """``[items, 3]``: the first token, tokens and frames that a path goes through."""
        rows = self.lengths - self.start_length - 1
        first = np.full_like(rows, self.start_length)
        return np.stack([first, rows, self.frames], 1).astype(np.int32)

    @property
    def targets(self) -> Int32Array:
        """``[items, T, 1]``: the token that follows each."""
        targets = np.zeros((*self.tokens.shape, 1), np.int32)
        targets[:, :-1, 0] = self.tokens[:, 1:]
        return targets


@dataclass(frozen=True, eq=False)
class Alignments:
    """The answer.

    Attributes:
        paths: Of each item.
        probabilities: ``[items, T]``, of ``tokens[t + 1]`` at t.
    """

    paths: list[Path]
    probabilities: Float32Array

    @classmethod
    def of(cls, paths: np.ndarray, lengths: np.ndarray, probabilities: np.ndarray) -> Alignments:
        """From paths ``[items, longest, 2]`` and their lengths, probabilities ``[items, T, 1]``."""
        return cls(
            [
                [(text, frame) for text, frame in path[:length].tolist()]
                for path, length in zip(paths, lengths, strict=True)
            ],
            probabilities[:, :, 0],
        )
