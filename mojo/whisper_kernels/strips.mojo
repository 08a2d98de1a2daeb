"""The left operand of a product, rearranged in strips of a few rows.

A product streams two operands: a panel of B, and a strip in which the same column of all its
rows lies together (Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication",
2008). A strip is prepared once for all panels that it meets.

For int8 panels on a processor that multiplies bytes the rows are quantised on the way, each row
by itself: `x = scale * (q - zero)` with q in 0 ... 255.
"""

from std.math import align_up, round
from std.memory import bitcast
from std.memory.alloc import unsafe_alloc

from .extremes import extremes
from .matrix import DOTS, F32, LANES, PANEL, Rows
from .tensors import Bytes, Floats

comptime ROWS = 12 if LANES >= 16 else (8 if LANES == 4 else 6)
"""Rows of a strip: as many accumulators as the register file holds."""
comptime HALF = ROWS // 2
comptime QUARTER = ROWS // 4
"""Strips are `ROWS`, `HALF`, `QUARTER` or 1 high: code is generated for these."""


def strip_height(rows: Int) -> Int:
    """The lowest of the compiled heights that holds `rows`; the rest is padding."""
    if rows > HALF:
        return ROWS
    if rows > QUARTER:
        return HALF
    return QUARTER if rows > 1 else 1


struct Strips[storage: DType]:
    """A [rows, depth] for products with matrices of `storage`; owns its memory."""

    comptime quantized = Self.storage == DType.int8 and DOTS

    var memory: Bytes
    var scales: Floats
    """Of each row, if quantised."""
    var zeros: Floats
    """The byte that stands for zero in each row, if quantised."""
    var corner: Floats
    """Room for a tile [ROWS, PANEL]."""
    var line: Floats
    """Room for a row."""
    var rows: Int
    var depth: Int

    def __init__(out self, most_rows: Int, most_depth: Int):
        """Room for so many rows and so much depth."""
        self.memory = unsafe_alloc[UInt8](
            align_up(most_rows, ROWS) * align_up(most_depth, 4) * (1 if Self.quantized else 4),
            alignment=64,
        )
        self.scales = unsafe_alloc[Float32](align_up(most_rows, ROWS))
        self.zeros = unsafe_alloc[Float32](align_up(most_rows, ROWS))
        self.corner = unsafe_alloc[Float32](ROWS * PANEL, alignment=64)
        self.line = unsafe_alloc[Float32](align_up(most_depth, LANES), alignment=64)
        self.rows = 0
        self.depth = 0

    def __deinit__(deinit self):
        self.memory.unsafe_free()
        self.scales.unsafe_free()
        self.zeros.unsafe_free()
        self.corner.unsafe_free()
        self.line.unsafe_free()

    @always_inline
    def strip(self, first_row: Int) -> Bytes:
        """The strip that begins at a row, a multiple of `ROWS`."""
        comptime if Self.quantized:
            return self.memory.unsafe_offset(first_row * align_up(self.depth, 4))
        return self.memory.unsafe_offset(first_row * self.depth * 4)

    @always_inline
    def height(self, first_row: Int) -> Int:
        """The height of the strip that begins at a row."""
        return strip_height(min(ROWS, self.rows - first_row))

    def prepare(mut self, a: Rows, first: Int, last: Int, depth: Int, scale: Float32 = 1):
        """Takes rows `[first, last)` of A, times `scale`."""
        self.rows = last - first
        self.depth = depth
        for start in range(0, self.rows, ROWS):
            var count = min(ROWS, self.rows - start)
            var height = strip_height(count)
            comptime if Self.quantized:
                self.quantize(a, first + start, start, count, height, scale)
            else:
                var strip = self.strip(start).unsafe_bitcast[Float32]()
                interleave(a, first + start, count, height, depth, strip, scale)

    def quantize(
        mut self, a: Rows, row: Int, start: Int, count: Int, height: Int, scale: Float32
    ):
        """One strip of bytes, `[depth // 4][height][4]`."""
        var strip = self.strip(start)
        for i in range(count):
            var place = (row + i) * a.stride + a.offset
            var source = a.data.unsafe_offset(place)
            if place < 0 or place + self.depth > a.limit:
                var low = max(0, min(self.depth, -place))
                var high = max(low, min(self.depth, a.limit - place))
                for k in range(low):
                    self.line[unsafe_offset=k] = 0
                for k in range(low, high):
                    self.line[unsafe_offset=k] = source[unsafe_offset=k]
                for k in range(high, self.depth):
                    self.line[unsafe_offset=k] = 0
                source = self.line
            var unit, zero = quantize_row(source, self.depth, strip.unsafe_offset(4 * i), height)
            self.scales[unsafe_offset=start + i] = unit * scale
            self.zeros[unsafe_offset=start + i] = zero


def quantize_row(row: Floats, depth: Int, strip: Bytes, height: Int) -> Tuple[Float32, Float32]:
    """Bytes of a row, four at a time `4 * height` apart; returns scale and zero."""
    var whole = depth // LANES * LANES
    var low, high = extremes(row, depth)
    var scale = max(high - low, Float32(1e-30)) / 255
    var inverse = 1 / scale
    var zero = round(-low * inverse)
    # Truncation of what is not negative, with one half added, rounds to the nearest.
    var shift = zero + 0.5
    for k in range(0, whole, LANES):
        var x = row.unsafe_offset(k).unsafe_load[width=LANES]()
        var q = min(x.fma(SIMD[F32, LANES](inverse), SIMD[F32, LANES](shift)), 255)
        var bytes = q.cast[DType.int32]().cast[DType.uint8]()
        var fours = bitcast[DType.uint32, LANES // 4](bytes)
        comptime for g in range(LANES // 4):
            strip.unsafe_offset((k + 4 * g) * height).unsafe_bitcast[UInt32]()[
                unsafe_offset=0
            ] = fours[g]
    for k in range(whole, align_up(depth, 4)):
        var q = zero
        if k < depth:
            q = min(row[unsafe_offset=k] * inverse + shift, 255)
        strip[unsafe_offset=k // 4 * 4 * height + k % 4] = q.cast[DType.int32]().cast[
            DType.uint8
        ]()
    return (scale, zero)


def interleave(
    a: Rows, first: Int, rows: Int, height: Int, depth: Int, strip: Floats, scale: Float32
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
