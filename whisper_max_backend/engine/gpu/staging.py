"""Packs small arrays of the host into one buffer, for one copy to the device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from max.driver import Buffer
from max.dtype import DType

_UNIT = 64
"""Bytes at whose multiples the arrays begin."""


def staged(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """The bytes of all arrays, of 32-bit numbers."""
    whole = np.empty(max(_UNIT, sum(map(_room, arrays.values()))), np.uint8)
    for _, array, start in _places(arrays):
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        whole[start : start + array.nbytes] = flat
    return whole


def parts(whole: Buffer, arrays: Mapping[str, np.ndarray]) -> dict[str, Buffer]:
    """The arrays within a buffer that has, or will have, what `staged` made of them."""
    return {
        name: whole[start : start + array.nbytes].view(DType.from_numpy(array.dtype), array.shape)
        for name, array, start in _places(arrays)
    }


def _room(array: np.ndarray) -> int:
    return -(-array.nbytes // _UNIT) * _UNIT


def _places(arrays: Mapping[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray, int]]:
    start = 0
    for name, array in arrays.items():
        yield name, array, start
        start += _room(array)
