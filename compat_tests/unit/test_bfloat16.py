"""bfloat16 in NumPy: the nearest value, ties to even."""

from __future__ import annotations

import numpy as np

from whisper_max_backend.engine.checkpoint.bfloat16 import rounded, widened

ALL = np.arange(1 << 16, dtype=np.uint16)
FINITE = ALL[(ALL & 0x7F80) != 0x7F80]


def test_what_is_a_bfloat16_stays_what_it_is() -> None:
    values = widened(ALL)
    numbers = ~np.isnan(values)
    np.testing.assert_array_equal(rounded(values)[numbers], ALL[numbers])


def test_the_nearest_one_is_taken_and_the_even_one_of_two() -> None:
    """From each to the next larger magnitude, there are 2**16 steps of float32."""
    below = FINITE[(FINITE & 0x7FFF) < 0x7F7F].astype(np.uint32)
    for beyond, expected in (
        (1, below),
        (0x7FFF, below),
        (0x8000, below + (below & 1)),
        (0x8001, below + 1),
        (0xFFFF, below + 1),
    ):
        values = ((below << 16) + beyond).astype(np.uint32).view(np.float32)
        np.testing.assert_array_equal(rounded(values), expected)


def test_shapes_are_kept() -> None:
    values = np.linspace(-3, 3, 24, dtype=np.float32).reshape(2, 3, 4)
    for view in (values, values.T, values[:, ::2], np.float32(1.5), values.astype(np.float64)):
        bits = rounded(np.asarray(view))
        assert bits.shape == np.shape(view)
        np.testing.assert_allclose(widened(bits), view, rtol=2**-8)
