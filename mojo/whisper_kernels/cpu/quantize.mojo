"""Quantises a row: `x = scale * (q - zero)`, q from `least` to `least + steps`."""

from std.math import round

from ..common.min_max import min_and_max
from ..common.simd import F32
from ..common.views import View
from .target import DOTS, SIGNED

comptime LEAST = Float32(-128 if SIGNED else 0)
comptime STEPS = Float32(255 if DOTS else 32767)
"""Where bytes are widened to 16 bits anyway, these hold what fits."""
comptime HALF_BYTE = Int32(128 if SIGNED else 0)
"""Added before the low byte is taken off: where that is signed, half of them are negative."""
comptime FINE_LEAST = Float32(-32768 if SIGNED else 0)
comptime FINE_STEPS = Float32(127 * 257 + 32768 if SIGNED else 65535)
"""Of integers that two bytes hold, of one sign or of both."""


struct RowQuantizer[least: Float32 = LEAST, steps: Float32 = STEPS](TrivialRegisterPassable):
    """The scale and the zero of one row."""

    var scale: Float32
    var zero: Float32
    """The integer that stands for zero."""
    var inverse: Float32
    """Of the scale."""

    def __init__[dtype: DType](out self, row: View[dtype], depth: Int):
        """Those with which all of the row's `depth` numbers, and zero, find an integer."""
        var low, high = min_and_max(row, depth)
        self.scale = max(high - low, Float32(1e-30)) / Self.steps
        self.inverse = 1 / self.scale
        self.zero = round(-low * self.inverse)
        comptime if SIGNED:
            self.zero += Self.least

    @always_inline
    def integers[width: Int](self, x: SIMD[F32, width]) -> SIMD[DType.int32, width]:
        """The q of some of the row's numbers."""
        # Truncation of what is not negative, with one half added, rounds to the nearest.
        comptime half = 0.5 - Self.least
        var q = x.fma(SIMD[F32, width](self.inverse), SIMD[F32, width](self.zero + half))
        return min(q, Self.steps).cast[DType.int32]() + Self.least.cast[DType.int32]()
