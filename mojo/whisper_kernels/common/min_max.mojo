"""The smallest and the largest of a row, several vectors at a time."""

from std.collections import Array
from std.sys import simd_width_of

from .simd import F32, LANES
from .views import FloatView, View

comptime WAYS = 4
"""Comparisons under way at once, each waiting for its own predecessor only."""


@always_inline
def larger[
    dtype: DType, //, width: Int
](a: SIMD[dtype, width], b: SIMD[dtype, width]) -> SIMD[dtype, width]:
    """The larger of both; one instruction, where a maximum that heeds NaN takes three."""
    return a.gt(b).select(a, b)


@always_inline
def smaller[
    dtype: DType, //, width: Int
](a: SIMD[dtype, width], b: SIMD[dtype, width]) -> SIMD[dtype, width]:
    """The smaller of both."""
    return a.lt(b).select(a, b)


@always_inline
def largest(row: FloatView, count: Int) -> Float32:
    """The largest of `count` values (minus infinity of none)."""
    var tops = Array[SIMD[F32, LANES], WAYS](fill=SIMD[F32, LANES](Float32.MIN))
    var whole = count // (WAYS * LANES) * (WAYS * LANES)
    for k in range(0, whole, WAYS * LANES):
        comptime for i in range(WAYS):
            tops[i] = larger(row.load[LANES](k + i * LANES), tops[i])
    var vectors = count // LANES * LANES
    for k in range(whole, vectors, LANES):
        tops[0] = larger(row.load[LANES](k), tops[0])
    comptime for i in range(1, WAYS):
        tops[0] = larger(tops[i], tops[0])
    var top = tops[0].reduce_max()
    for k in range(vectors, count):
        top = larger[1](row[k], top)
    return top


@always_inline
def min_and_max[dtype: DType](row: View[dtype], count: Int) -> Tuple[Float32, Float32]:
    """The smallest and the largest of `count` values and zero."""
    comptime lanes = simd_width_of[dtype]()
    var lows = Array[SIMD[dtype, lanes], WAYS](fill=SIMD[dtype, lanes](0))
    var highs = Array[SIMD[dtype, lanes], WAYS](fill=SIMD[dtype, lanes](0))
    var whole = count // (WAYS * lanes) * (WAYS * lanes)
    for k in range(0, whole, WAYS * lanes):
        comptime for i in range(WAYS):
            var x = row.load[lanes](k + i * lanes)
            lows[i] = smaller(x, lows[i])
            highs[i] = larger(x, highs[i])
    var vectors = count // lanes * lanes
    for k in range(whole, vectors, lanes):
        var x = row.load[lanes](k)
        lows[0] = smaller(x, lows[0])
        highs[0] = larger(x, highs[0])
    comptime for i in range(1, WAYS):
        lows[0] = smaller(lows[i], lows[0])
        highs[0] = larger(highs[i], highs[0])
    var low = lows[0].reduce_min()
    var high = highs[0].reduce_max()
    for k in range(vectors, count):
        low = smaller[1](row[k], low)
        high = larger[1](row[k], high)
    return (low.cast[F32](), high.cast[F32]())
