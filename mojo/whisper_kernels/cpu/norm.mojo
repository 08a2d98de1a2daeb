"""Layer normalisation (Ba et al., 2016), epsilon 1e-5 as in the reference."""

from std.math import sqrt

from ..common.simd import F32, LANES
from ..common.views import Floats

comptime EPSILON = Float32(1e-5)


def normalize(x: Floats, gamma: Floats, beta: Floats, y: Floats, width: Int):
    """`y = (x - mean) / sqrt(variance + epsilon) * gamma + beta` over one row."""
    var whole = width // LANES * LANES
    var sums = SIMD[F32, LANES](0)
    for k in range(0, whole, LANES):
        sums += x.unsafe_offset(k).unsafe_load[width=LANES]()
    var total = sums.reduce_add()
    for k in range(whole, width):
        total += x[unsafe_offset=k]
    var mean = total / Float32(width)
    var squares = SIMD[F32, LANES](0)
    for k in range(0, whole, LANES):
        var d = x.unsafe_offset(k).unsafe_load[width=LANES]() - mean
        squares = d.fma(d, squares)
    var variance = squares.reduce_add()
    for k in range(whole, width):
        var d = x[unsafe_offset=k] - mean
        variance += d * d
    var scale = 1 / sqrt(variance / Float32(width) + EPSILON)
    for k in range(0, whole, LANES):
        var d = x.unsafe_offset(k).unsafe_load[width=LANES]() - mean
        var g = gamma.unsafe_offset(k).unsafe_load[width=LANES]() * scale
        y.unsafe_offset(k).unsafe_store(d.fma(g, beta.unsafe_offset(k).unsafe_load[width=LANES]()))
    for k in range(whole, width):
        y[unsafe_offset=k] = (x[unsafe_offset=k] - mean) * scale * gamma[unsafe_offset=k] + beta[
            unsafe_offset=k
        ]
