"""Quantises a row: `x = scale * (q - zero)`, q from 0 to `LARGEST`."""

from std.math import round

from ..common.min_max import min_and_max
from ..common.simd import F32
from ..common.views import View
from .target import DOTS

comptime LARGEST = Float32(255 if DOTS else 32767)
"""Where bytes are widened to 16 bits anyway, these hold what fits."""


struct RowQuantizer(TrivialRegisterPassable):
    """The scale and the zero of one row."""

    var scale: Float32
    var zero: Float32
    """The integer that stands for zero."""
    var inverse: Float32
    """Of the scale."""

    def __init__[dtype: DType](out self, row: View[dtype], depth: Int):
        """Those with which all of the row's `depth` numbers, and zero, find an integer."""
        var low, high = min_and_max(row, depth)
        self.scale = max(high - low, Float32(1e-30)) / LARGEST
        self.inverse = 1 / self.scale
        self.zero = round(-low * self.inverse)

    @always_inline
    def integers[width: Int](self, x: SIMD[F32, width]) -> SIMD[DType.int32, width]:
        """The q of some of the row's numbers."""
        # Truncation of what is not negative, with one half added, rounds to the nearest.
        var q = x.fma(SIMD[F32, width](self.inverse), SIMD[F32, width](self.zero + 0.5))
        return min(q, LARGEST).cast[DType.int32]()
