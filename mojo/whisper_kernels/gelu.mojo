"""The exact GELU, x/2 (1 + erf(x / sqrt 2)), as the reference computes it."""

from std.collections import Array

from .matrix import F32

comptime EDGE = Float32(4)
"""From here on erf is 1 to within float32."""
comptime DEGREE = 15
# erf(z) / z as a polynomial in u = z^2 / 8 - 1, the minimax fit over |z| <= EDGE.
comptime ERF: Array[Float32, DEGREE + 1] = [
    0.353530973,
    -0.176576287,
    0.131676614,
    -0.107708581,
    0.0901758224,
    -0.0747441277,
    0.060164094,
    -0.0457220636,
    0.0319368131,
    -0.0224305689,
    0.0167834889,
    -0.00901281647,
    0.00201420137,
    -0.00183574785,
    0.00290750852,
    -0.00115934294,
]


@always_inline
def gelu[width: Int](x: SIMD[F32, width]) -> SIMD[F32, width]:
    """The GELU of some numbers, with an absolute error below 1e-6."""
    var z = (x * 0.70710678).clamp(-EDGE, EDGE)
    var u = z.fma(z * 0.125, SIMD[F32, width](-1))
    comptime highest = ERF[DEGREE]
    var sum = SIMD[F32, width](highest)
    comptime for i in range(DEGREE):
        comptime coefficient = ERF[DEGREE - 1 - i]
        sum = sum.fma(u, SIMD[F32, width](coefficient))
    return 0.5 * x * z.fma(sum, SIMD[F32, width](1))


comptime NEAR_EDGE = Float32(3.2)
comptime FEW = 8
# As above, with u = 2 (z / NEAR_EDGE)^2 - 1.
comptime NEARLY_ERF: Array[Float32, FEW + 1] = [
    0.441325754,
    -0.217241436,
    0.154705077,
    -0.114995532,
    0.0786838233,
    -0.0478516743,
    0.0354226008,
    -0.0275046006,
    0.00995899364,
]


@always_inline
def nearly_gelu[width: Int](x: SIMD[F32, width]) -> SIMD[F32, width]:
    """The GELU with an absolute error below 6e-5: for what is rounded to bytes or bfloat16 next."""
    var z = (x * 0.70710678).clamp(-NEAR_EDGE, NEAR_EDGE)
    var u = z.fma(z * 0.1953125, SIMD[F32, width](-1))
    comptime highest = NEARLY_ERF[FEW]
    var sum = SIMD[F32, width](highest)
    comptime for i in range(FEW):
        comptime coefficient = NEARLY_ERF[FEW - 1 - i]
        sum = sum.fma(u, SIMD[F32, width](coefficient))
    return 0.5 * x * z.fma(sum, SIMD[F32, width](1))
