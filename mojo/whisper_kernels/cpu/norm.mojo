"""Layer normalisation (Ba et al., 2016), epsilon 1e-5 as in the reference."""

from std.math import sqrt

from ..common.simd import F32, LANES
from ..common.views import FloatView

comptime EPSILON = Float32(1e-5)


def normalize(x: FloatView, gamma: FloatView, beta: FloatView, y: FloatView, width: Int):
    """`y = (x - mean) / sqrt(variance + epsilon) * gamma + beta` over one row."""
    var whole = width // LANES * LANES
    var sums = SIMD[F32, LANES](0)
    for k in range(0, whole, LANES):
        sums += x.load[LANES](k)
    var total = sums.reduce_add()
    for k in range(whole, width):
        total += x[k]
    var mean = total / Float32(width)
    var squares = SIMD[F32, LANES](0)
    for k in range(0, whole, LANES):
        var d = x.load[LANES](k) - mean
        squares = d.fma(d, squares)
    var variance = squares.reduce_add()
    for k in range(whole, width):
        var d = x[k] - mean
        variance += d * d
    var scale = 1 / sqrt(variance / Float32(width) + EPSILON)
    for k in range(0, whole, LANES):
        var d = x.load[LANES](k) - mean
        var g = gamma.load[LANES](k) * scale
        y.store(k, d.fma(g, beta.load[LANES](k)))
    for k in range(whole, width):
        y[k] = (x[k] - mean) * scale * gamma[k] + beta[k]
