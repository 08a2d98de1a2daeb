"""What callers may pass to the engine: checked, and brought to one form.

Types are judged as the reference's bindings do: an argument of a wrong type, or a negative number
where a count is meant, is a TypeError at once; values that the model cannot work with are a
ValueError, or a RuntimeError where the reference raises one, with the request's result.
"""

from __future__ import annotations

import functools
import logging
import operator
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..checkpoint.load import Dimensions
from ..checkpoint.vocabulary import Vocabulary
from .arrays import ArrayView, read

_log = logging.getLogger("whisper_max_backend")

Features = ArrayView | npt.NDArray[np.float32]


def count(name: str, value: Any) -> int:
    """A non-negative integer.

    Raises:
        TypeError: Not an integer, or negative.
    """
    number = integer(name, value)
    if number < 0:
        raise TypeError(f"{name} must not be negative, got {number}")
    return number


def integer(name: str, value: Any) -> int:
    """An integer of any kind, NumPy's included.

    Raises:
        TypeError: Not an integer.
    """
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None


def real(name: str, value: Any) -> float:
    """A number of any kind, rounded to float32 as the reference's options are.

    Raises:
        TypeError: Not a number.
    """
    if isinstance(value, str | bytes) or not hasattr(value, "__float__"):
        raise TypeError(f"{name} must be a number, got {value!r}")
    return float(np.float32(float(value)))


def integers(name: str, values: Any) -> list[int]:
    """A sequence of integers.

    Raises:
        TypeError: Not a sequence, or of something else.
    """
    return [integer(f"{name}[{i}]", value) for i, value in enumerate(_sequence(name, values))]


def counts(name: str, values: Any) -> list[int]:
    """A sequence of non-negative integers.

    Raises:
        TypeError: Not a sequence, or of something else.
    """
    return [count(f"{name}[{i}]", value) for i, value in enumerate(_sequence(name, values))]


def batch_of_ids(name: str, batch: Any) -> list[list[int]]:
    """A batch of sequences of token ids.

    Raises:
        TypeError: Anything else.
    """
    return [counts(f"{name}[{i}]", ids) for i, ids in enumerate(_sequence(name, batch))]


def prompt_ids(prompts: Any, vocabulary: Vocabulary) -> list[list[int]]:
    """Prompts as token ids; a token that the vocabulary lacks becomes <|endoftext|>.

    Args:
        prompts: A batch of sequences, all of token strings or all of token ids.
        vocabulary: Of the model.

    Raises:
        TypeError: Anything else.
    """
    batch = [_sequence(f"prompts[{i}]", p) for i, p in enumerate(_sequence("prompts", prompts))]
    strings = [isinstance(token, str) for prompt in batch for token in prompt]
    if strings and all(strings):
        return [[vocabulary.to_id(token) for token in prompt] for prompt in batch]
    if any(strings):
        raise TypeError("prompts must be all token strings or all token ids, got both")
    return batch_of_ids("prompts", batch)


def check_ways(tensor_parallel: Any, flash_attention: Any) -> None:
    """Ways to compute that are the engine's choice.

    Raises:
        ValueError: The model is to be split between devices.
    """
    if tensor_parallel:
        raise ValueError(
            "Tensor Parallel mode is not supported: load the model on each device instead, with a "
            "list as device_index"
        )
    if flash_attention:
        _tell_flash_attention()


def check_ids(name: str, batch: Iterable[Sequence[int]], n_vocab: int) -> None:
    """Refuse token ids outside of the vocabulary, which the reference reads out of bounds.

    Raises:
        ValueError: An id is too large.
    """
    for item, ids in enumerate(batch):
        worst = max(ids, default=0)
        if worst >= n_vocab:
            raise ValueError(
                f"{name}[{item}] contains the token id {worst}, but the vocabulary of this model "
                f"ends at {n_vocab - 1}: take the ids from this model's own tokenizer"
            )


def check_prompts(prompts: Sequence[Sequence[int]], vocabulary: Vocabulary) -> tuple[int, int]:
    """Where the task tokens of a batch's prompts are (``check_prompts`` of whisper.cc).

    Returns:
        The position of <|startoftranscript|>, and the length of the prompt up to the last task
        token (<|notimestamps|>, language and the like); what follows is a forced prefix.

    Raises:
        ValueError: A prompt lacks <|startoftranscript|>, or these differ between the items.
    """
    places = [_task_tokens(prompt, vocabulary) for prompt in prompts]
    for start, end in places[1:]:
        if start != places[0][0]:
            raise ValueError(
                "The generate method currently requires the <|startoftranscript|> token to be at "
                "the same position in all batches. To work around this limitation, simply adapt "
                "the number of previous text tokens in each batch."
            )
        if end != places[0][1]:
            raise ValueError(
                "The generate method currently requires each batch to have the same number of "
                "task tokens after <|startoftranscript|>."
            )
    return places[0]


def check_positions(length: int, n_text_ctx: int, what: str) -> None:
    """Refuse more tokens than the decoder has positions for.

    Raises:
        RuntimeError: As the reference's position encodings do.
    """
    if length > n_text_ctx:
        raise RuntimeError(
            f"No position encodings are defined for positions >= {n_text_ctx}, but got position "
            f"{length - 1}: {what} has {length} tokens, shorten it"
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


def is_encoded(features: Features, dimensions: Dimensions) -> bool:
    """Whether these are encoder outputs rather than features (``WhisperEncoder::is_encoded``)."""
    shape = features.shape
    return (
        len(shape) == 3 and shape[2] == dimensions.n_audio_state and shape[1] != dimensions.n_mels
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


@functools.cache
def _tell_flash_attention() -> None:
    _log.info("flash_attention has no effect: this engine chooses its attention kernels itself")


def _task_tokens(prompt: Sequence[int], vocabulary: Vocabulary) -> tuple[int, int]:
    if vocabulary.sot not in prompt:
        raise ValueError("<|startoftranscript|> token was not found in the prompt")
    start = end = list(prompt).index(vocabulary.sot)
    while end < len(prompt) and vocabulary.sot <= prompt[end] <= vocabulary.no_timestamps:
        end += 1
    return start, end


def _sequence(name: str, value: Any) -> Sequence[Any]:
    # As the reference's bindings see it: sets and iterators are none, nor are strings.
    if isinstance(value, str | bytes) or not (
        hasattr(value, "__len__") and hasattr(value, "__getitem__") and not isinstance(value, dict)
    ):
        raise TypeError(f"{name} must be a list, got {value!r}")
    return list(value)
