"""Arguments of callers: checked, and brought to one form.

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

_log = logging.getLogger("whisper_max_backend")


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
    return [integer(f"{name}[{i}]", value) for i, value in enumerate(sequence(name, values))]


def counts(name: str, values: Any) -> list[int]:
    """A sequence of non-negative integers.

    Raises:
        TypeError: Not a sequence, or of something else.
    """
    return [count(f"{name}[{i}]", value) for i, value in enumerate(sequence(name, values))]


def batch_of_ids(name: str, batch: Any) -> list[list[int]]:
    """A batch of sequences of token ids.

    Raises:
        TypeError: Anything else.
    """
    return [counts(f"{name}[{i}]", ids) for i, ids in enumerate(sequence(name, batch))]


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


def check_loading_options(tensor_parallel: Any, flash_attention: Any) -> None:
    """Options of the reference's that the engine does not follow.

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


@functools.cache
def _tell_flash_attention() -> None:
    _log.info("flash_attention has no effect: this engine chooses its attention kernels itself")


def sequence(name: str, value: Any) -> Sequence[Any]:
    """A sequence as the reference's bindings see it: sets and iterators are none, nor are strings.

    Raises:
        TypeError: Anything else.
    """
    if isinstance(value, str | bytes) or not (
        hasattr(value, "__len__") and hasattr(value, "__getitem__") and not isinstance(value, dict)
    ):
        raise TypeError(f"{name} must be a list, got {value!r}")
    return list(value)
