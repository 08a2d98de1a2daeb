"""A call of ``Whisper.align``: its arguments, and what they mean for a model.

Types are judged at the call, values when the request is run, as the reference does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..checkpoint.dimensions import Dimensions
from ..checkpoint.vocabulary import Vocabulary
from ..state.alignment_request import AlignmentRequest
from . import arguments
from .features import Features, as_features, check_batch, encoded_frames, is_encoded


@dataclass(frozen=True, eq=False)
class AlignmentCall:
    """The arguments of a call, of the right types.

    Attributes:
        features: ``[batch, n_mels, frames]``, or what ``encode`` returned.
        start_sequence: What precedes the texts, <|notimestamps|> left out.
        text_tokens: The text of each item.
        num_frames: Feature frames of each item that are not padding.
        median_filter_width: Positions in the filter over time.
    """

    features: Features
    start_sequence: Sequence[int]
    text_tokens: Sequence[Sequence[int]]
    num_frames: Sequence[int]
    median_filter_width: int

    @classmethod
    def of(
        cls,
        features: Any,
        start_sequence: Any,
        text_tokens: Any,
        num_frames: Any,
        median_filter_width: Any,
    ) -> AlignmentCall:
        """From what a caller passed; `num_frames` may be one number for all items.

        Raises:
            TypeError: An argument of a wrong type.
            ValueError: Features that are not of floating point.
        """
        start = arguments.counts("start_sequence", start_sequence)
        texts = arguments.batch_of_ids("text_tokens", text_tokens)
        if hasattr(num_frames, "__len__"):
            frames = arguments.counts("num_frames", num_frames)
        else:
            frames = [arguments.count("num_frames", num_frames)] * len(texts)
        width = arguments.count("median_filter_width", median_filter_width)
        return cls(as_features(features), start, texts, frames, width)

    def plan(
        self, dimensions: Dimensions, vocabulary: Vocabulary, config: Mapping[str, Any]
    ) -> AlignmentRequest | None:
        """What this asks of a model; None of an empty batch.

        Raises:
            ValueError: Arguments that do not belong together.
            RuntimeError: The model names no alignment heads, or a text is too long.
        """
        start, texts = self.start_sequence, self.text_tokens
        check_batch("text_tokens", len(texts), self.features)
        if not texts:
            return None
        if len(self.num_frames) != len(texts):
            raise ValueError(
                f"Invalid batch size for argument num_frames: {len(self.num_frames)} instead of "
                f"{len(texts)}"
            )
        if self.median_filter_width == 0:
            raise ValueError("median_filter_width must be > 0; pass 1 for no filter")
        heads = alignment_heads(config)
        arguments.check_ids("start_sequence", [start], vocabulary.size)
        arguments.check_ids("text_tokens", texts, vocabulary.size)
        rows = [[*start, vocabulary.no_timestamps, *text, vocabulary.eot] for text in texts]
        lengths = np.array([len(row) for row in rows], np.int32)
        longest = int(lengths.max())
        arguments.check_positions(
            longest, dimensions.n_text_ctx, "the longest text with what frames it"
        )
        shape = self.features.shape
        encoded = is_encoded(self.features, dimensions)
        most = shape[1] if encoded else encoded_frames(shape[2])
        return AlignmentRequest(
            np.array([row + [0] * (longest - len(row)) for row in rows], np.int32),
            lengths,
            np.minimum(np.array(self.num_frames) // 2, most).astype(np.int32),
            heads,
            len(start),
            self.median_filter_width,
            vocabulary.eot,
        )


def alignment_heads(config: Mapping[str, Any]) -> list[tuple[int, int]]:
    """The layers and heads that a model's ``config.json`` names.

    Raises:
        RuntimeError: It names none.
        ValueError: Its list is empty.
    """
    heads = config.get("alignment_heads")
    if heads is None:
        raise RuntimeError(
            "The model configuration does not contain the field 'alignment_heads' which lists "
            "the cross-attention heads that are highly correlated to the word-level timing; "
            "convert this model again with a current converter"
        )
    if not heads:
        raise ValueError("'alignment_heads' in config.json is empty; name the heads, or remove it")
    return [(int(layer), int(head)) for layer, head in heads]
