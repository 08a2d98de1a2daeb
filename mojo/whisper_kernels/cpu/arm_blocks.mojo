"""Sums of products of bytes by SMMLA, ARM's instruction for blocks of matrices.

One instruction multiplies two rows with two columns, eight bytes of each, and adds the four sums to
a vector: of the first row and both columns, then of the second row.

Source: Arm Architecture Reference Manual for A-profile, SMMLA (vector).
"""

from std.collections import Array
from std.sys import llvm_intrinsic

from ..common.views import View
from .panels import PANEL
from .prefetch import NEAR, prefetch
from .target import GROUP

comptime I32 = DType.int32
comptime BLOCK_BYTES = 2 * GROUP
"""Two rows or two columns of a block."""


@always_inline
def block_sums[
    height: Int, columns: Int, prefetch_bytes: Int
](strip: View[DType.int8], panel: View[DType.int8], groups: Int) -> Array[
    SIMD[I32, 4], height * columns // 4
]:
    """Those of a strip of `height` rows and some columns of a panel, row by row in vectors.

    What lies `prefetch_bytes` behind is asked for.
    """
    comptime across = columns // 2
    comptime down = (height + 1) // 2
    var blocks = Array[SIMD[I32, 4], down * across](fill=SIMD[I32, 4](0))
    for k in range(groups):
        var line = panel.offset(k * GROUP * PANEL)
        comptime for ahead in range(prefetch_bytes, prefetch_bytes + GROUP * PANEL, 64):
            prefetch[NEAR](line.offset(ahead))
        var b = Array[SIMD[DType.int8, BLOCK_BYTES], across](fill=SIMD[DType.int8, BLOCK_BYTES](0))
        comptime for j in range(across):
            b[j] = line.load[BLOCK_BYTES](BLOCK_BYTES * j)
        comptime for i in range(down):
            var a = two_rows[height, i](strip.offset(k * GROUP * height))
            comptime for j in range(across):
                blocks[i * across + j] = llvm_intrinsic[
                    "llvm.aarch64.neon.smmla.v4i32.v16i8", SIMD[I32, 4]
                ](blocks[i * across + j], a, b[j])
    var sums = Array[SIMD[I32, 4], height * columns // 4](fill=SIMD[I32, 4](0))
    comptime for i in range(height):
        comptime for j in range(columns // 4):
            comptime place = i // 2 * across + 2 * j
            comptime half = i % 2 * 2
            var left = blocks[place].slice[2, offset=half]()
            sums[i * (columns // 4) + j] = left.join(blocks[place + 1].slice[2, offset=half]())
    return sums^


@always_inline
def two_rows[height: Int, pair: Int](strip: View[DType.int8]) -> SIMD[DType.int8, BLOCK_BYTES]:
    """A group of two rows; of a strip that has one, of this one twice."""
    comptime if height == 1:
        var row = strip.load[GROUP]()
        return row.join(row)
    return strip.load[BLOCK_BYTES](BLOCK_BYTES * pair)
