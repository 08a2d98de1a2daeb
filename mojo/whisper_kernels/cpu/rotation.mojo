"""Rotates the rows of both operands of a product before they become bytes.

The largest number of a row sets the step that all its numbers are rounded to. Some columns of
Whisper's activations, and some of its weights, are many times as large as the others. Where the
rows of both operands are multiplied by the same orthogonal matrix, their products stay what they
are, and each number is spread over many. The matrix is Hadamard's, which takes additions alone,
after some signs are changed, so that the numbers of a row do not add up where they are alike.

Source: Ashkboos et al., "QuaRot: Outlier-Free 4-Bit Inference in Rotated LLMs", 2024.
"""

from std.collections import Array
from std.math import sqrt
from std.sys.info import CompilationTarget

from ..common.simd import F32, LANES
from ..common.views import FloatView, View

comptime APART = 16
"""The numbers that are mixed lie so far apart, or a multiple of it: whole vectors are added."""
comptime LEVELS = 3 if CompilationTarget.has_avx2() and LANES < 16 else 4
"""Levels of a block that are made at once: registers hold two to that power of vectors."""


def rotate[dtype: DType](row: View[dtype], signs: FloatView, rotated: FloatView):
    """`rotated = row` times the matrix; both may be the same. `signs` are as many as the numbers.

    A row is a sequence of blocks, each as long as a power of two may be in what is left of it.
    Fewer than two times `APART` numbers at the end stay as they are.
    """
    for k in range(mix[signed=True](row, signs, rotated), signs.count):
        rotated[k] = row[k].cast[F32]()


def rotate_back(row: FloatView, signs: FloatView):
    """The inverse, in place."""
    for k in range(0, mix[signed=False](row, signs, row), LANES):
        row.store(k, row.load[LANES](k) * signs.load[LANES](k))


def choose_signs(signs: FloatView):
    """1 or -1 for each number of a row, by the bits of a hash."""
    for start in range(0, signs.count, APART):
        var hash = UInt32(start // APART + 1) * 0x9E3779B9
        hash = (hash ^ (hash >> 15)) * 0x85EBCA6B
        hash ^= hash >> 13
        for i in range(min(APART, signs.count - start)):
            signs[start + i] = 1 - 2 * Float32((hash >> UInt32(i)) & 1)


def mix[
    dtype: DType, //, signed: Bool
](row: View[dtype], signs: FloatView, mixed: FloatView) -> Int:
    """`mixed`: each block of a row times Hadamard's matrix, which is its own inverse. If `signed`,
    the row's numbers get their signs before. Returns how many numbers are in blocks."""
    var count = signs.count
    var start = 0
    while count - start >= 2 * APART:
        var levels = 1
        while start + (2 * APART << levels) <= count:
            levels += 1
        var block = mixed.slice(start, APART << levels)
        var own_signs = signs.offset(start)
        var factor = 1 / sqrt(Float32(1 << levels))
        var made = min(levels, LEVELS)
        comptime for some in range(1, LEVELS + 1):
            if made == some:
                add_and_subtract[some, signed](row.offset(start), own_signs, factor, levels, block)
        while levels > made:
            levels -= made
            made = min(levels, LEVELS)
            comptime for some in range(1, LEVELS + 1):
                if made == some:
                    add_and_subtract[some, False](block, own_signs, 1, levels, block)
        start += block.count
    return start


@always_inline
def add_and_subtract[
    dtype: DType, //, some: Int, signed: Bool
](x: View[dtype], signs: FloatView, factor: Float32, levels: Int, block: FloatView):
    """Makes the next `some` of a block's `levels` that are left, from `factor` times x.

    A level makes sums and differences of numbers that are half as far apart as those of the level
    before. Each number is read and written once for all of these levels.
    """
    comptime ways = 1 << some
    var apart = APART << (levels - some)
    for first in range(0, block.count, ways * apart):
        for k in range(first, first + apart, LANES):
            var values = Array[SIMD[F32, LANES], ways](fill=SIMD[F32, LANES](0))
            comptime for i in range(ways):
                var place = k + i * apart
                values[i] = x.load[LANES](place).cast[F32]() * factor
                comptime if signed:
                    values[i] *= signs.load[LANES](place)
            comptime for level in range(some):
                comptime between = ways >> (level + 1)
                comptime for i in range(ways):
                    comptime if i & between == 0:
                        var a = values[i]
                        var b = values[i + between]
                        values[i] = a + b
                        values[i + between] = a - b
            comptime for i in range(ways):
                block.store(k + i * apart, values[i])
