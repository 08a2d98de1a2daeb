"""Fast exponentials, most of them of arguments that are not positive."""

from std.collections import Array
from std.memory import bitcast

from .min_max import larger
from .polynomial import polynomial
from .simd import F32

comptime LOG2_OF_E = Float32(1.4426950408889634)
comptime LEAST = Float32(-115)
"""Of powers of 2: less adds nothing to a sum that is at least 1."""

# Minimax fits of 2^f over [-1/2, 1/2].
comptime EXP2: Array[Float32, 7] = [
    1,
    0.6931472,
    0.24022646,
    5.5503286e-2,
    9.618489e-3,
    1.339993e-3,
    1.534579e-4,
]
comptime FAST_EXP2: Array[Float32, 5] = [
    1.00000008,
    0.69312103,
    0.24022107,
    5.592204e-2,
    9.67604e-3,
]
comptime NEAR_EXP2: Array[Float32, 4] = [0.99992806, 0.69326097, 0.24261114, 5.517167e-2]
comptime ROUNDING = Float32(3 << 22)
"""Added to a number below 2^22, it leaves the nearest integer in the lowest bits."""


@always_inline
def exp_below[width: Int](x: SIMD[F32, width]) -> SIMD[F32, width]:
    """`e^x` for x <= 0 with a relative error of 1e-7 near 0; at least 2^LEAST."""
    return exp2_by[EXP2](larger(x * LOG2_OF_E, SIMD[F32, width](LEAST)))


@always_inline
def exp2_fast[width: Int](x: SIMD[F32, width]) -> SIMD[F32, width]:
    """`2^x` for x <= 0 with a relative error of 4e-6; 2^-30 below -30."""
    return exp2_by[FAST_EXP2](max(x, -30))


@always_inline
def exp2_bytes[width: Int](x: SIMD[F32, width]) -> SIMD[DType.int32, width]:
    """`255 2^x` for x <= 0, rounded, in the lowest byte; the others are those of `ROUNDING`."""
    var y = exp2_by[NEAR_EXP2](larger(x, SIMD[F32, width](-30)))
    return bitcast[DType.int32, width](y.fma(SIMD[F32, width](255), SIMD[F32, width](ROUNDING)))


@always_inline
def exp2_by[
    terms: Int, width: Int, //, power: Array[Float32, terms]
](x: SIMD[F32, width]) -> SIMD[F32, width]:
    """`2^x` by one of the polynomials, for exponents of normal numbers."""
    var rounded = x + ROUNDING
    var exponent = bitcast[DType.int32, width](rounded) << 23
    var fraction = x - (rounded - ROUNDING)
    var scaled = bitcast[DType.int32, width](polynomial[power](fraction)) + exponent
    return bitcast[F32, width](scaled)
