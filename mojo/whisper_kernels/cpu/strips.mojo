"""The left operand of a product, rearranged in strips of a few rows.

A product streams two operands: a panel of B, and a strip in which the same column of all its
rows lies together (Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication",
2008). A strip is prepared once for all panels that it meets.

For int8 panels the rows are quantised on the way, each row by itself (quantizer.mojo), to bytes or
16 bits (`INTEGER`), a group in 32 bits. The tile unit has strips of its own (amx/rows.mojo).
"""

from std.math import align_up, ceildiv
from std.memory import bitcast
from std.memory.alloc import unsafe_alloc
from std.sys import size_of

from .norm import normalize
from ..common.simd import F32, LANES
from .panels import DOTS, GROUP, PANEL, TILE_ROWS, Rows, padded_depth, tiled
from .weights import Norm
from .quantizer import Quantizer
from ..common.views import Bytes, Floats, Numbers
from .amx.rows import quantize_tile_row, round_tile_row

comptime ROWS = 12 if LANES >= 16 else (8 if LANES == 4 else 6)
"""Rows of a strip: as many accumulators as the register file holds."""
comptime HALF = ROWS // 2
comptime QUARTER = ROWS // 4
"""Strips are `ROWS`, `HALF`, `QUARTER` or 1 high: code is generated for these."""
comptime INTEGER = DType.uint8 if DOTS else DType.int16
"""What the quantised values of A are kept in."""


def strip_height(rows: Int) -> Int:
    """The lowest of the compiled heights that holds `rows`; the rest is padding."""
    if rows > HALF:
        return ROWS
    if rows > QUARTER:
        return HALF
    return QUARTER if rows > 1 else 1


struct Strips[storage: DType]:
    """A [rows, depth] for products with matrices of `storage`; owns its memory."""

    comptime quantized = Self.storage == DType.int8
    comptime tiled = tiled[Self.storage]()
    comptime rows_each = TILE_ROWS if Self.tiled else ROWS
    """Rows of a strip."""
    comptime block_rows = 2 * Self.rows_each if Self.tiled else ROWS
    """Rows of a tile of results."""

    var memory: Bytes
    var scales: Floats
    """Of each row, if quantised."""
    var zeros: Floats
    """The byte that stands for zero in each row, if quantised."""
    var corner: Floats
    """Room for two tiles [block_rows, PANEL]."""
    var lines: Floats
    """Room for the rows of a strip, as floats."""
    var rows: Int
    var depth: Int

    def __init__(out self, most_rows: Int, most_depth: Int):
        """Room for so many rows and so much depth."""
        var room = align_up(most_rows, Self.rows_each)
        self.memory = unsafe_alloc[UInt8](room * Self.row_bytes(most_depth), alignment=64)
        self.scales = unsafe_alloc[Float32](room)
        self.zeros = unsafe_alloc[Float32](room)
        self.corner = unsafe_alloc[Float32](2 * Self.block_rows * PANEL, alignment=64)
        self.lines = unsafe_alloc[Float32](
            Self.rows_each * align_up(most_depth, LANES), alignment=64
        )
        self.rows = 0
        self.depth = 0

    def __deinit__(deinit self):
        self.memory.unsafe_free()
        self.scales.unsafe_free()
        self.zeros.unsafe_free()
        self.corner.unsafe_free()
        self.lines.unsafe_free()

    @always_inline
    def strip(self, first_row: Int) -> Bytes:
        """The strip that begins at a row, a multiple of `rows_each`."""
        return self.memory.unsafe_offset(first_row * Self.row_bytes(self.depth))

    @staticmethod
    @always_inline
    def row_bytes(depth: Int) -> Int:
        """Bytes that a row takes."""
        comptime if Self.tiled:
            return padded_depth[Self.storage](depth) * size_of[Scalar[Self.storage]]()
        return 4 * (ceildiv(depth, GROUP) if Self.quantized else depth)

    @always_inline
    def height(self, first_row: Int) -> Int:
        """The height of the strip that begins at a row."""
        return strip_height(min(ROWS, self.rows - first_row))

    def prepare[
        dtype: DType
    ](mut self, a: Rows[dtype], first: Int, last: Int, depth: Int, scale: Float32 = 1):
        """Takes rows `[first, last)` of A, times `scale`."""
        self.rows = last - first
        self.depth = depth
        for start in range(0, self.rows, Self.rows_each):
            self.fill(start, a, first + start, scale)

    def prepare_normed(mut self, x: Floats, rows: Int, depth: Int, norm: Norm):
        """Takes x [rows, depth], normalised; of a strip at a time, which stays in the cache."""
        self.rows = rows
        self.depth = depth
        for start in range(0, rows, Self.rows_each):
            var count = min(Self.rows_each, rows - start)
            for i in range(count):
                normalize(
                    x.unsafe_offset((start + i) * depth),
                    norm.gamma,
                    norm.beta,
                    self.lines.unsafe_offset(i * depth),
                    depth,
                )
            self.fill(start, Rows(self.lines, depth, count), 0, 1)

    def fill[dtype: DType](mut self, start: Int, a: Rows[dtype], first: Int, scale: Float32):
        """The strip that begins at `start`: rows of A from `first` on, times `scale`."""
        var count = min(Self.rows_each, self.rows - start)
        var strip = self.strip(start)
        comptime if Self.quantized or Self.tiled:
            for i in range(count):
                self.convert(self.contiguous(a, first + i), strip, start, i, scale)
        else:
            var target = strip.unsafe_bitcast[Float32]()
            interleave(rebind[Rows[F32]](a), first, count, strip_height(count), self.depth, target, scale)

    def contiguous[dtype: DType](self, a: Rows[dtype], row: Int) -> Numbers[dtype]:
        """A row of A, whole: where it lies or, if part of it lies outside, in `lines`."""
        var place = row * a.stride + a.offset
        var source = a.data.unsafe_offset(place)
        if place >= 0 and place + self.depth <= a.limit:
            return source
        var low = max(0, min(self.depth, -place))
        var high = max(low, min(self.depth, a.limit - place))
        var line = self.lines.unsafe_bitcast[Scalar[dtype]]()
        for k in range(low):
            line[unsafe_offset=k] = 0
        for k in range(low, high):
            line[unsafe_offset=k] = source[unsafe_offset=k]
        for k in range(high, self.depth):
            line[unsafe_offset=k] = 0
        return line

    def convert[
        dtype: DType
    ](mut self, row: Numbers[dtype], strip: Bytes, start: Int, index: Int, scale: Float32):
        """Row `index` of the strip that begins at `start`, in the strip's own type."""
        comptime if Self.storage == DType.bfloat16:
            round_tile_row(row, self.depth, scale, strip, index)
        else:
            var quantizer = Quantizer(row, self.depth)
            comptime if Self.tiled:
                quantize_tile_row(row, self.depth, quantizer, strip, index)
            else:
                quantize_row(
                    row, self.depth, quantizer, strip.unsafe_offset(4 * index), self.height(start)
                )
            self.scales[unsafe_offset=start + index] = quantizer.scale * scale
            self.zeros[unsafe_offset=start + index] = quantizer.zero


def quantize_row[
    dtype: DType
](row: Numbers[dtype], depth: Int, quantizer: Quantizer, strip: Bytes, height: Int):
    """Integers of a row, its groups `height` apart."""
    var whole = depth // LANES * LANES
    for k in range(0, whole, LANES):
        var x = row.unsafe_offset(k).unsafe_load[width=LANES]().cast[F32]()
        var groups = grouped(quantizer.integers(x))
        comptime for g in range(LANES // GROUP):
            strip.unsafe_bitcast[UInt32]()[unsafe_offset=(k // GROUP + g) * height] = groups[g]
    for k in range(whole, align_up(depth, GROUP)):
        var x = row[unsafe_offset=k].cast[F32]() if k < depth else 0
        strip.unsafe_bitcast[Scalar[INTEGER]]()[
            unsafe_offset=k // GROUP * GROUP * height + k % GROUP
        ] = quantizer.integers[1](x).cast[INTEGER]()


@always_inline
def grouped[width: Int](q: SIMD[DType.int32, width]) -> SIMD[DType.uint32, width // GROUP]:
    """Integers as they lie in a strip, a group in 32 bits."""
    return bitcast[DType.uint32, width // GROUP](q.cast[INTEGER]())


def interleave(
    a: Rows[F32], first: Int, rows: Int, height: Int, depth: Int, strip: Floats, scale: Float32
):
    """`strip[k * height + row] = scale * A`; rows up to `height` are zero."""
    for i in range(rows, height):
        for k in range(depth):
            strip[unsafe_offset=k * height + i] = 0
    var start = first * a.stride + a.offset
    var end = start + (rows - 1) * a.stride + depth
    var whole = 0
    if start >= 0 and end <= a.limit:
        whole = rows // 4 * 4
        for i in range(0, whole, 4):
            interleave_four(
                a.data.unsafe_offset(start + i * a.stride),
                a.stride,
                depth,
                strip.unsafe_offset(i),
                height,
                scale,
            )
    for i in range(whole, rows):
        var place = start + i * a.stride
        var low = max(0, min(depth, -place))
        var high = max(low, min(depth, a.limit - place))
        var row = a.data.unsafe_offset(place)
        for k in range(low):
            strip[unsafe_offset=k * height + i] = 0
        for k in range(low, high):
            strip[unsafe_offset=k * height + i] = row[unsafe_offset=k] * scale
        for k in range(high, depth):
            strip[unsafe_offset=k * height + i] = 0


def interleave_four(
    rows: Floats, stride: Int, depth: Int, strip: Floats, height: Int, scale: Float32
):
    """`strip[k * height + i] = scale * rows[i * stride + k]` for four rows."""
    var whole = depth // LANES * LANES
    for k in range(0, whole, LANES):
        var a = rows.unsafe_offset(k).unsafe_load[width=LANES]()
        var b = rows.unsafe_offset(stride + k).unsafe_load[width=LANES]()
        var c = rows.unsafe_offset(2 * stride + k).unsafe_load[width=LANES]()
        var d = rows.unsafe_offset(3 * stride + k).unsafe_load[width=LANES]()
        var together = (a * scale).interleave(c * scale).interleave((b * scale).interleave(d * scale))
        comptime for lane in range(LANES):
            strip.unsafe_offset((k + lane) * height).unsafe_store(
                together.slice[4, offset=4 * lane]()
            )
    for k in range(whole, depth):
        for i in range(4):
            strip[unsafe_offset=k * height + i] = rows[unsafe_offset=i * stride + k] * scale
