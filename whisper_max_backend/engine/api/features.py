"""Features and encoder outputs that callers pass: of any kind of array, checked for a model."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..checkpoint.dimensions import Dimensions
from .arrays import ArrayView, read

Features = ArrayView | npt.NDArray[np.float32]


def as_features(value: Any) -> Features:
    """Features or encoder output of any kind of array, without a copy where that is possible.

    Args:
        value: An output of ``encode``, or what ``arrays.read`` takes, of any floating point type.

    Raises:
        TypeError: Not an array.
        ValueError: Not of floating point, or not to be read.
    """
    if isinstance(value, ArrayView):
        return value if value.dtype.name == "float32" else value.to("float32")
    array = read(value)
    if array.dtype.kind != "f":
        raise ValueError(
            f"features must be floating point numbers, got {array.dtype}: convert them to float32"
        )
    return np.asarray(array, dtype=np.float32, order="C")


def batch_size(features: Features) -> int:
    """How many windows these are: none of a scalar, which the encoder refuses later."""
    return int(features.shape[0]) if len(features.shape) > 0 else 0


def encoded_frames(frames: int) -> int:
    """How many the encoder makes of so many."""
    return (frames + 1) // 2


def is_encoded(features: Features, dimensions: Dimensions) -> bool:
    """Whether these are encoder outputs rather than features (``WhisperEncoder::is_encoded``)."""
    shape = features.shape
    return (
        len(shape) == 3 and shape[2] == dimensions.n_audio_state and shape[1] != dimensions.n_mels
    )


def check_rank(features: Features) -> None:
    """Refuse features without batch, bands and frames.

    Raises:
        ValueError: Other than 3 dimensions.
    """
    rank = len(features.shape)
    if rank != 3:
        raise ValueError(
            f"Expected input features to have 3 dimensions, but got {rank} dimension(s) instead"
        )


def check_batch(name: str, size: int, features: Features) -> None:
    """Refuse an argument that has not one entry for each item of the features.

    Raises:
        ValueError: The sizes differ, or the features are no batch.
    """
    check_rank(features)
    items = features.shape[0]
    if size != items:
        raise ValueError(
            f"{name} has {size} entries, but the features have a batch of {items}: give one for "
            "each item"
        )


def check_features(features: Features, dimensions: Dimensions) -> None:
    """Refuse features that the encoder does not take: ``[batch, n_mels, frames]`` is wanted.

    Raises:
        ValueError: Another rank or number of mel bands, too many frames, or none.
    """
    check_rank(features)
    batch, bands, frames = features.shape
    longest = 2 * dimensions.n_audio_ctx  # the second convolution has a stride of 2
    if bands != dimensions.n_mels or frames > longest:
        raise ValueError(
            "Invalid input features shape: expected an input with shape "
            f"({batch}, {dimensions.n_mels}, {min(frames, longest)}), but got an input with shape "
            f"({batch}, {bands}, {frames}) instead"
        )
    if frames == 0:
        raise ValueError("Invalid input features shape: there are no frames to encode")
