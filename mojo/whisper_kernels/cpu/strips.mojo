"""Packs the left operand of a product into strips of a few rows; for int8, quantised.

A product streams two operands: a panel of B, and a strip in which the same column of all its
rows lies together (Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication",
2008). A strip is prepared once for all panels that it meets.

For int8 panels the rows are quantised on the way, each row by itself (quantize.mojo), to bytes or
16 bits (`INTEGER`), a group in a `WORD`; those that meet weights are rotated before
(rotation.mojo). Where the rows of a step are bytes, and a request has few, each becomes two rows, of
high bytes and of low ones: alone, such products wait for memory, so that 16 bits take little longer.
For pairs of bfloat16 they are rounded, a pair in 32 bits. AMX has strips of its own
(amx/strips.mojo).
"""

from std.math import align_up, ceildiv
from std.memory import bitcast
from std.sys import size_of

from ..common.simd import BF16, F32, LANES
from ..common.views import ByteView, FloatView, View
from .amx.strips import quantize_tile_row, round_tile_row, split_tile_row
from .norm import normalize
from .panels import PANEL, Rows, padded_depth
from .quantize import FINE_LEAST, FINE_STEPS, HALF_BYTE, RowQuantizer
from .rotation import choose_signs, rotate
from .target import DOTS, GROUP, INTEGER, STRIP_ROWS, TILE_ROWS, WORD, paired, tiled
from .weight_reader import Norm

comptime HALF_STRIP = STRIP_ROWS // 2
comptime QUARTER_STRIP = STRIP_ROWS // 4
"""Strips are `STRIP_ROWS`, `HALF_STRIP`, `QUARTER_STRIP` or 1 high: code is generated for these."""
comptime WORD_BYTES = size_of[Scalar[WORD]]()
comptime WHOLE = Int.MAX if DOTS else 512 // GROUP
"""Groups of a segment where a row has one scale. Sums of products of bytes always fit into an int32,
those of 16 bits and a byte for 512 numbers."""
comptime ROUNDED_AT_ONCE = max(LANES, 2 * GROUP)
"""Numbers of a row that are quantised at once: whole groups."""


def strip_height(rows: Int) -> Int:
    """The lowest of the compiled heights that holds `rows`; the rest is padding."""
    if rows > HALF_STRIP:
        return STRIP_ROWS
    if rows > QUARTER_STRIP:
        return HALF_STRIP
    return QUARTER_STRIP if rows > 1 else 1


struct Strips[storage: DType]:
    """A [rows, depth] for products with matrices of `storage`; owns its memory."""

    comptime quantized = Self.storage == DType.int8
    comptime tiled = tiled[Self.storage]()
    comptime paired = paired[Self.storage]()
    comptime group = GROUP if Self.quantized else (2 if Self.paired else 1)
    """Neighbours in a row that lie together in 32 bits."""
    comptime rows_each = TILE_ROWS if Self.tiled else STRIP_ROWS
    """Rows of a strip."""
    comptime block_rows = 2 * Self.rows_each if Self.tiled else STRIP_ROWS
    """Rows of a tile of results."""

    var memory: ByteView
    var scales: FloatView
    """Of each row, if quantised; of all rows for each segment."""
    var segment: Int
    """Groups of a segment, which share a row's scale."""
    var between_scales: Int
    """From the scales of a segment to those of the next; 0 where a row has only one."""
    var zeros: FloatView
    """The integer that stands for zero in each row, if quantised."""
    var shifts: FloatView
    """What is added to all products of each row, if quantised; 0 where `shift` does not set it."""
    var corner: FloatView
    """Room for two tiles [block_rows, PANEL]."""
    var lines: FloatView
    """Room for the rows of a strip, as floats."""
    var rotated: FloatView
    """Room for a row, if rows are rotated."""
    var signs: FloatView
    """Of the numbers of such a row."""
    var planes: Int
    """Rows of bytes that each row becomes, high bytes first: 1 or 2."""
    var rows: Int
    """Of A."""
    var depth: Int

    def __init__(
        out self,
        most_rows: Int,
        most_depth: Int,
        for_weights: Bool = False,
        request_rows: Int = 0,
        segment: Int = 0,
    ):
        """Room for so many rows and so much depth; for products with weights, or with keys or
        values. Where a request has `request_rows` and half a strip holds them, rows are of 16
        bits: others that share the product do not change them. 0 stands for many. Rows have a
        scale for every `segment` numbers of their depth, or, if it is 0, only one."""
        var few = 0 < request_rows <= Self.rows_each // 2
        comptime splits = Self.quantized and DOTS
        self.planes = 2 if splits and few else 1
        var room = align_up(self.planes * most_rows, Self.rows_each)
        self.memory = ByteView.allocate(room * Self.row_bytes(most_depth))
        self.segment = segment // Self.group if segment > 0 else WHOLE
        self.between_scales = room if segment > 0 else 0
        self.scales = FloatView.allocate(
            room * (ceildiv(most_depth, segment) if segment > 0 else 1)
        )
        self.zeros = FloatView.allocate(room)
        self.shifts = FloatView.allocate(room)
        for i in range(room):
            self.shifts[i] = 0
        self.corner = FloatView.allocate(2 * Self.block_rows * PANEL)
        self.lines = FloatView.allocate(Self.rows_each * align_up(most_depth, LANES))
        var turned = most_depth if for_weights and Self.quantized else 0
        self.rotated = FloatView.allocate(turned)
        self.signs = FloatView.allocate(turned)
        choose_signs(self.signs)
        self.rows = 0
        self.depth = 0

    def __deinit__(deinit self):
        self.memory.free()
        self.scales.free()
        self.zeros.free()
        self.shifts.free()
        self.corner.free()
        self.lines.free()
        self.rotated.free()
        self.signs.free()

    @always_inline
    def strip(self, first_row: Int) -> ByteView:
        """The strip that begins at a row of all strips, a multiple of `rows_each`."""
        return self.memory.offset(first_row * Self.row_bytes(self.depth))

    @staticmethod
    @always_inline
    def row_bytes(depth: Int) -> Int:
        """Bytes that a row takes."""
        comptime if Self.tiled:
            return padded_depth[Self.storage](depth) * size_of[Scalar[Self.storage]]()
        return (WORD_BYTES if Self.quantized else 4) * ceildiv(depth, Self.group)

    @always_inline
    def height(self, first_row: Int) -> Int:
        """The height of the strip that begins at a row of all strips."""
        return strip_height(min(STRIP_ROWS, self.strip_rows() - first_row))

    @always_inline
    def strip_rows(self) -> Int:
        """Rows of all strips."""
        return self.planes * self.rows

    @always_inline
    def rows_at_once(self) -> Int:
        """Rows of A that a strip holds."""
        return Self.rows_each // self.planes

    def begin(mut self, rows: Int, depth: Int):
        """Sets how many rows of A there are, and how deep; `fill` reads them."""
        self.rows = rows
        self.depth = depth

    def shift(mut self, row: Int, by: Float32):
        """Adds a number to all products of a row of A."""
        self.shifts[self.planes * row] = by

    def prepare[
        dtype: DType
    ](mut self, a: Rows[dtype], first: Int, last: Int, depth: Int, scale: Float32 = 1):
        """Takes rows `[first, last)` of A, times `scale`."""
        self.begin(last - first, depth)
        for start in range(0, self.rows, self.rows_at_once()):
            self.fill(start, a, first + start, scale)

    def prepare_normed(mut self, x: FloatView, rows: Int, depth: Int, norm: Norm):
        """Takes x [rows, depth], normalised; of a strip at a time, which stays in the cache."""
        self.begin(rows, depth)
        for start in range(0, rows, self.rows_at_once()):
            var count = min(self.rows_at_once(), rows - start)
            for i in range(count):
                normalize(
                    x.slice((start + i) * depth, depth),
                    norm.gamma,
                    norm.beta,
                    self.lines.slice(i * depth, depth),
                    depth,
                )
            self.fill(start, Rows(self.lines, depth, count), 0, 1)

    def fill[dtype: DType](mut self, start: Int, a: Rows[dtype], first: Int, scale: Float32):
        """The strip that begins at `start`: rows of A from `first` on, times `scale`."""
        var count = min(self.rows_at_once(), self.rows - start)
        var strip = self.strip(self.planes * start)
        comptime if Self.quantized or Self.paired:
            for i in range(count):
                self.convert(self.contiguous(a, first + i), strip, start, i, scale)
        else:
            var target = strip.bitcast[DType.float32]()
            interleave(
                rebind[Rows[F32]](a), first, count, strip_height(count), self.depth, target, scale
            )

    def contiguous[dtype: DType](self, a: Rows[dtype], row: Int) -> View[dtype]:
        """A row of A, whole: where it lies or, if part of it lies outside, in `lines`."""
        var place = row * a.stride + a.offset
        var source = a.data.offset(place)
        if place >= 0 and place + self.depth <= a.limit:
            return source
        var low = max(0, min(self.depth, -place))
        var high = max(low, min(self.depth, a.limit - place))
        var line = self.lines.bitcast[dtype]()
        for k in range(low):
            line[k] = 0
        for k in range(low, high):
            line[k] = source[k]
        for k in range(high, self.depth):
            line[k] = 0
        return line

    def convert[
        dtype: DType
    ](mut self, row: View[dtype], strip: ByteView, start: Int, index: Int, scale: Float32):
        """Row `index` of the strip that begins at `start`, in the strip's own type."""
        comptime if Self.tiled and Self.paired:
            round_tile_row(row, self.depth, scale, strip, index)
        elif Self.paired:
            pair_row(row, self.depth, scale, strip.offset(4 * index), self.height(start))
        else:
            if self.rotated.count > 0:
                rotate(row, self.signs.slice(0, self.depth), self.rotated)
                self.quantize(self.rotated, strip, start, index, scale)
            else:
                self.quantize(row, strip, start, index, scale)

    def quantize[
        dtype: DType
    ](mut self, row: View[dtype], strip: ByteView, start: Int, index: Int, scale: Float32):
        """The same, in integers."""
        comptime if DOTS:
            if self.planes == 2:
                self.split(row, strip, start, index, scale)
                return
        var quantizer = RowQuantizer(row, self.depth)
        comptime if Self.tiled:
            quantize_tile_row(row, self.depth, quantizer, strip, index)
        else:
            quantize_row(
                row, self.depth, quantizer, strip.offset(WORD_BYTES * index), self.height(start)
            )
        self.scales[start + index] = quantizer.scale * scale
        self.zeros[start + index] = quantizer.zero

    def split[
        dtype: DType
    ](mut self, row: View[dtype], strip: ByteView, start: Int, index: Int, scale: Float32):
        """The same in two rows of the strip: high bytes and low ones."""
        var quantizer = RowQuantizer[FINE_LEAST, FINE_STEPS](row, self.depth)
        comptime if Self.tiled:
            split_tile_row(row, self.depth, quantizer, strip, 2 * index)
        else:
            var place = strip.offset(2 * WORD_BYTES * index)
            split_row(row, self.depth, quantizer, place, self.height(2 * start))
        var zero = quantizer.zero.cast[DType.int32]()
        var high = (zero + HALF_BYTE) >> 8
        var first = 2 * (start + index)
        self.scales[first] = 256 * quantizer.scale * scale
        self.zeros[first] = high.cast[F32]()
        self.scales[first + 1] = quantizer.scale * scale
        self.zeros[first + 1] = (zero - (high << 8)).cast[F32]()


def quantize_row[
    dtype: DType
](row: View[dtype], depth: Int, quantizer: RowQuantizer, strip: ByteView, height: Int):
    """Integers of a row, its groups `height` apart."""
    comptime width = ROUNDED_AT_ONCE
    var whole = depth // width * width
    for k in range(0, whole, width):
        var x = row.load[width](k).cast[F32]()
        var groups = grouped(quantizer.integers(x))
        comptime for g in range(width // GROUP):
            strip.bitcast[WORD]()[(k // GROUP + g) * height] = groups[g]
    for k in range(whole, align_up(depth, GROUP)):
        var x = row[k].cast[F32]() if k < depth else 0
        strip.bitcast[INTEGER]()[k // GROUP * GROUP * height + k % GROUP] = quantizer.integers[1](
            x
        ).cast[INTEGER]()


def split_row[
    dtype: DType
](
    row: View[dtype],
    depth: Int,
    quantizer: RowQuantizer[FINE_LEAST, FINE_STEPS],
    strip: ByteView,
    height: Int,
):
    """Integers of a row in two rows of a strip, high bytes and low ones; groups `height` apart."""
    comptime width = ROUNDED_AT_ONCE
    var whole = depth // width * width
    for k in range(0, whole, width):
        store_planes(quantizer.integers(row.load[width](k).cast[F32]()), strip, k, height)
    for k in range(whole, align_up(depth, GROUP)):
        var q = quantizer.integers[1](row[k].cast[F32]() if k < depth else 0)
        var place = k // GROUP * GROUP * height + k % GROUP
        strip.bitcast[INTEGER]()[place] = ((q + HALF_BYTE) >> 8).cast[INTEGER]()
        strip.bitcast[INTEGER]()[place + GROUP] = q.cast[INTEGER]()


def pair_row[
    dtype: DType
](row: View[dtype], depth: Int, scale: Float32, strip: ByteView, height: Int):
    """A row, times `scale`, in bfloat16, its pairs `height` apart."""
    var whole = depth // LANES * LANES
    var words = strip.bitcast[DType.uint32]()
    for k in range(0, whole, LANES):
        var x = row.load[LANES](k).cast[F32]() * scale
        var pairs = bitcast[DType.uint32, LANES // 2](x.cast[BF16]())
        comptime for pair in range(LANES // 2):
            words[(k // 2 + pair) * height] = pairs[pair]
    for k in range(whole, align_up(depth, 2)):
        var x = row[k].cast[F32]() * scale if k < depth else 0
        strip.bitcast[BF16]()[k // 2 * 2 * height + k % 2] = x.cast[BF16]()


@always_inline
def store_planes[width: Int](q: SIMD[DType.int32, width], strip: ByteView, k: Int, height: Int):
    """Integers of a row, from number `k` on, in two rows of a strip: high bytes, then low ones."""
    var high = grouped((q + HALF_BYTE) >> 8)
    var low = grouped(q)
    comptime for g in range(width // GROUP):
        var words = SIMD[WORD, 2](high[g], low[g])
        strip.bitcast[WORD]().store((k // GROUP + g) * height, words)


@always_inline
def grouped[width: Int](q: SIMD[DType.int32, width]) -> SIMD[WORD, width // GROUP]:
    """Integers as they lie in a strip, a group in a word."""
    return bitcast[WORD, width // GROUP](q.cast[INTEGER]())


def interleave(
    a: Rows[F32], first: Int, rows: Int, height: Int, depth: Int, strip: FloatView, scale: Float32
):
    """`strip[k * height + row] = scale * A`; rows up to `height` are zero."""
    for i in range(rows, height):
        for k in range(depth):
            strip[k * height + i] = 0
    var start = first * a.stride + a.offset
    var end = start + (rows - 1) * a.stride + depth
    var whole = 0
    if start >= 0 and end <= a.limit:
        whole = rows // 4 * 4
        for i in range(0, whole, 4):
            interleave_four(
                a.data.offset(start + i * a.stride),
                a.stride,
                depth,
                strip.offset(i),
                height,
                scale,
            )
    for i in range(whole, rows):
        var place = start + i * a.stride
        var low = max(0, min(depth, -place))
        var high = max(low, min(depth, a.limit - place))
        var row = a.data.offset(place)
        for k in range(low):
            strip[k * height + i] = 0
        for k in range(low, high):
            strip[k * height + i] = row[k] * scale
        for k in range(high, depth):
            strip[k * height + i] = 0


def interleave_four(
    rows: FloatView, stride: Int, depth: Int, strip: FloatView, height: Int, scale: Float32
):
    """`strip[k * height + i] = scale * rows[i * stride + k]` for four rows."""
    var whole = depth // LANES * LANES
    for k in range(0, whole, LANES):
        var a = rows.load[LANES](k)
        var b = rows.load[LANES](stride + k)
        var c = rows.load[LANES](2 * stride + k)
        var d = rows.load[LANES](3 * stride + k)
        var together = (
            (a * scale).interleave(c * scale).interleave((b * scale).interleave(d * scale))
        )
        comptime for lane in range(LANES):
            strip.store((k + lane) * height, together.slice[4, offset=4 * lane]())
    for k in range(whole, depth):
        for i in range(4):
            strip[k * height + i] = rows[i * stride + k] * scale
