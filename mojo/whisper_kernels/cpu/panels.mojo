"""The packed layout of the right operand of a product: panels.

Every dense product (linear layers, convolutions, attention scores and the weighted sum of
values) is `C = A B`. B has been stored once, as panels of `PANEL` columns: element (k, n) lies
in panel `n // PANEL` at `[k][n % PANEL]`, and the last panel is padded with zeros. A panel is
read front to back, which is what a decoder step, bound by memory, wants; for its sake panels may
be of a smaller type than float32, and are widened as they are read.

Panels of int8 begin with the scale of every column and the sum of its integers (`HEADER` bytes,
float32). `GROUP` values of a column lie together, `[k // GROUP][n % PANEL][k % GROUP]`: those that
a lane of the processor's instruction multiplies and adds up. So do the two of a pair where
the processor multiplies bfloat16. The depth of both is padded with zeros to whole tiles of AMX.
"""

from std.math import align_up, ceildiv
from std.sys import size_of

from ..common.simd import F32
from ..common.views import ByteView, View
from .target import GROUP, TILE_BYTES, paired

comptime PANEL = 32
"""Columns of a panel: two vectors of AVX-512, four of AVX2."""
comptime HEADER = 2 * PANEL * 4
"""Bytes before an int8 panel: its columns' scales, then their sums."""


@always_inline
def padded_depth[storage: DType](depth: Int) -> Int:
    """The depth of a panel in memory."""
    comptime if storage == DType.int8 or storage == DType.bfloat16:
        return align_up(depth, TILE_BYTES // size_of[Scalar[storage]]())
    return depth


@always_inline
def panel_bytes[storage: DType](depth: Int) -> Int:
    """Bytes of a panel, a multiple of 64."""
    comptime header = HEADER if storage == DType.int8 else 0
    return header + padded_depth[storage](depth) * PANEL * size_of[Scalar[storage]]()


@always_inline
def cell[storage: DType](k: Int, lane: Int) -> Int:
    """Where element (k, lane) of a panel lies behind the header, in elements."""
    comptime group = GROUP if storage == DType.int8 else (2 if paired[storage]() else 1)
    return k // group * group * PANEL + group * lane + k % group


@fieldwise_init
struct Matrix[storage: DType](ImplicitlyCopyable):
    """B [depth, columns] in panels."""

    var data: ByteView
    var depth: Int
    var columns: Int

    def panels(self) -> Int:
        """Number of panels."""
        return ceildiv(self.columns, PANEL)

    def bytes(self) -> Int:
        """Size of all panels."""
        return self.panels() * panel_bytes[Self.storage](self.depth)

    @always_inline
    def panel(self, index: Int) -> ByteView:
        """Where a panel begins: with its header, if it has one."""
        return self.data.offset(index * panel_bytes[Self.storage](self.depth))


struct Rows[dtype: DType = F32](ImplicitlyCopyable):
    """Where the rows of A lie in memory.

    Row i is `data[i * stride + offset ...]`; what falls outside `[0, limit)` is
    zero. A linear layer has offset 0; a convolution over time-major input
    `[time, channels]` reads overlapping windows, with stride `step * channels`
    and offset `-padding * channels`.
    """

    var data: View[Self.dtype]
    var stride: Int
    var offset: Int
    var limit: Int

    def __init__(out self, data: View[Self.dtype], stride: Int, offset: Int, limit: Int):
        self.data = data
        self.stride = stride
        self.offset = offset
        self.limit = limit

    def __init__(out self, data: View[Self.dtype], stride: Int, rows: Int):
        """Rows that all lie inside."""
        self.data = data
        self.stride = stride
        self.offset = 0
        self.limit = rows * stride
