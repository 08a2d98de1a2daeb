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
