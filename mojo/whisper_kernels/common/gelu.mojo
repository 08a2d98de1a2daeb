"""The exact GELU, x/2 (1 + erf(x / sqrt 2)), as the reference computes it."""

from std.collections import Array

from .min_max import larger, smaller
from .polynomial import polynomial
from .simd import F32

# erf(z) / z as polynomials in u = 2 (z / edge)^2 - 1, the minimax fits over |z| <= edge, from where
# on erf is taken for 1.
comptime EDGE = Float64(4)
comptime ERF: Array[Float32, 16] = [
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

comptime NEAR_EDGE = Float64(3.2)
comptime NEARLY_ERF: Array[Float32, 9] = [
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

# x - gelu(x) for x >= 0, which is -gelu(-x), in u = 2 x / edge - 1; at the edge it is nearly 0.
comptime HALF_EDGE = Float64(4)
comptime HALF_REST: Array[Float32, 8] = [
    0.0453509,
    -0.171578,
    0.221864,
    0.0142682,
    -0.325786,
    0.239043,
    0.0584392,
    -0.0816698,
]


@always_inline
def gelu[width: Int](x: SIMD[F32, width]) -> SIMD[F32, width]:
    """The GELU of some numbers, with an absolute error below 1e-6."""
    return gelu_by[ERF, EDGE](x)


@always_inline
def nearly_gelu[width: Int](x: SIMD[F32, width]) -> SIMD[F32, width]:
    """The GELU with an absolute error below 6e-5: for what is rounded to bytes or bfloat16 next."""
    return gelu_by[NEARLY_ERF, NEAR_EDGE](x)


@always_inline
def half_gelu[width: Int](x: SIMD[DType.float16, width]) -> SIMD[DType.float16, width]:
    """The GELU with an absolute error below 1e-3, and that of float16: for what is rounded to bytes
    next. Of what is negative it takes the little that is left of it, so no digits cancel."""
    comptime V = SIMD[DType.float16, width]
    comptime factor = Float16(2 / HALF_EDGE)
    var u = smaller(abs(x), V(Float16(HALF_EDGE))).fma(V(factor), V(-1))
    return larger(x, V(0)) - polynomial[HALF_REST](u)


@always_inline
def gelu_by[
    terms: Int, width: Int, //, erf: Array[Float32, terms], edge: Float64
](x: SIMD[F32, width]) -> SIMD[F32, width]:
    """The GELU by one of the polynomials."""
    comptime bound = Float32(edge)
    comptime factor = Float32(2 / (edge * edge))
    var z = (x * 0.70710678).clamp(-bound, bound)
    var u = z.fma(z * factor, SIMD[F32, width](-1))
    return 0.5 * x * z.fma(polynomial[erf](u), SIMD[F32, width](1))
