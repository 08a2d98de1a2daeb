"""Fast exponentials, most of them of arguments that are not positive."""

from std.collections import Array
from std.math import round
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


@always_inline
def exp_below[width: Int](x: SIMD[F32, width]) -> SIMD[F32, width]:
    """`e^x` for x <= 0 with a relative error of 1e-7 near 0; at least 2^LEAST."""
    return exp2_by[EXP2](larger(x * LOG2_OF_E, SIMD[F32, width](LEAST)))


@always_inline
def exp2_fast[width: Int](x: SIMD[F32, width]) -> SIMD[F32, width]:
    """`2^x` for x <= 0 with a relative error of 4e-6; 2^-30 below -30."""
    return exp2_by[FAST_EXP2](max(x, -30))


@always_inline
def exp2_by[
    terms: Int, width: Int, //, power: Array[Float32, terms]
](x: SIMD[F32, width]) -> SIMD[F32, width]:
    """`2^x` by one of the polynomials, for exponents of normal numbers."""
    var whole = round(x)
    var exponent = whole.cast[DType.int32]() << 23
    var scaled = bitcast[DType.int32, width](polynomial[power](x - whole)) + exponent
    return bitcast[F32, width](scaled)
