"""bfloat16 in NumPy, which has no such type: the upper halves of float32, as uint16."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def rounded(values: npt.NDArray[np.floating]) -> npt.NDArray[np.uint16]:
    """The bits of the nearest bfloat16, ties to even; of NaN those that NumPy's has, no others."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype(np.uint16).reshape(values.shape)


def widened(bits: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    """The values in float32."""
    return np.asarray(bits.astype(np.uint32) << 16).view(np.float32)
