"""Rotates the rows of both operands of a product before they become bytes.

The largest number of a row sets the step that all its numbers are rounded to. Some columns of
Whisper's activations, and some of its weights, are many times as large as the others. Where the
rows of both operands are multiplied by the same orthogonal matrix, their products stay what they
are, and each number is spread over many. The matrix is Hadamard's, which takes additions alone,
after some signs are changed, so that the numbers of a row do not add up where they are alike.

Source: Ashkboos et al., "QuaRot: Outlier-Free 4-Bit Inference in Rotated LLMs", 2024.
"""

from std.math import iota, sqrt
from std.memory import bitcast

from ..common.simd import F32, LANES
from ..common.views import FloatView, View

comptime APART = 16
"""The numbers that are mixed lie so far apart, or a multiple of it: whole vectors are added."""


def rotate[dtype: DType](row: View[dtype], count: Int, rotated: FloatView):
    """`rotated = row` times the matrix; both may be the same.

    A row is a sequence of blocks, each as long as a power of two may be in what is left of it.
    Fewer than two times `APART` numbers at the end stay as they are.
    """
    var whole = count // (2 * APART) * (2 * APART)
    for k in range(0, whole, LANES):
        rotated.store(k, with_signs(row.load[LANES](k).cast[F32](), k))
    for k in range(whole, count):
        rotated[k] = row[k].cast[F32]()
    mix(rotated, count)


def rotate_back(row: FloatView, count: Int):
    """The inverse, in place."""
    mix(row, count)
    for k in range(0, count // (2 * APART) * (2 * APART), LANES):
        row.store(k, with_signs(row.load[LANES](k), k))


def mix(row: FloatView, count: Int):
    """Every block times Hadamard's matrix, which is its own inverse."""
    var start = 0
    while count - start >= 2 * APART:
        var size = 2 * APART
        while start + 2 * size <= count:
            size *= 2
        var block = row.slice(start, size)
        var step = size // 2
        var factor = 1 / sqrt(Float32(size // APART))
        while step > APART:
            add_and_subtract_twice(block, size, step, factor)
            factor = 1
            step //= 4
        if step == APART:
            add_and_subtract(block, size, step, factor)
        start += size


@always_inline
def add_and_subtract(block: FloatView, size: Int, step: Int, factor: Float32):
    """Sums and differences of all numbers that are `step` apart, times `factor`."""
    for pair in range(0, size, 2 * step):
        for k in range(pair, pair + step, LANES):
            var a = block.load[LANES](k) * factor
            var b = block.load[LANES](k + step) * factor
            block.store(k, a + b)
            block.store(k + step, a - b)


@always_inline
def add_and_subtract_twice(block: FloatView, size: Int, step: Int, factor: Float32):
    """The same for `step`, then, without the factor, for half of it; each number is read once."""
    var half = step // 2
    for pair in range(0, size, 2 * step):
        for k in range(pair, pair + half, LANES):
            var a = block.load[LANES](k) * factor
            var b = block.load[LANES](k + half) * factor
            var c = block.load[LANES](k + step) * factor
            var d = block.load[LANES](k + step + half) * factor
            block.store(k, (a + c) + (b + d))
            block.store(k + half, (a + c) - (b + d))
            block.store(k + step, (a - c) + (b - d))
            block.store(k + step + half, (a - c) - (b - d))


@always_inline
def with_signs(x: SIMD[F32, LANES], start: Int) -> SIMD[F32, LANES]:
    """Numbers of a row from `start` on, some of them times -1: those for which a hash has a bit."""
    var hash = UInt32(start // APART + 1) * 0x9E3779B9
    hash = (hash ^ (hash >> 15)) * 0x85EBCA6B
    hash ^= hash >> 13
    var lanes = iota[DType.uint32, LANES](UInt32(start % APART))
    var bits = (SIMD[DType.uint32, LANES](hash) >> lanes) << 31
    return bitcast[F32, LANES](bitcast[DType.uint32, LANES](x) ^ bits)
