"""Packs and quantises matrices into panels, the right operand of a product.

int8 panels are quantised column by column, `w = scale * q` with the largest |q| at 127, as
CTranslate2 quantises the weights of a linear layer. Weights are rotated before (rotation.mojo).
"""

from std.bit import log2_floor
from std.collections import Array
from std.math import align_up, round
from std.memory import bitcast
from std.sys import size_of

from ..common.min_max import min_and_max
from ..common.simd import F32, LANES
from ..common.views import ByteView, FloatView, View
from .panels import HEADER, PANEL, Matrix, cell, padded_depth, panel_bytes
from .target import BLOCKS, DOTS, GROUP, TILE_BYTES, WORD, paired, tiled

comptime LARGEST_INT8 = Float32(127)
comptime GROUPED = WORD if DOTS else DType.uint16
"""Holds a group of bytes."""


def pack_column[
    storage: DType, dtype: DType
](column: View[dtype], depth: Int, factor: Float32, panel: ByteView, lane: Int):
    """A column of B, contiguous in memory, as column `lane` of a panel; times `factor`, which is 1
    for int8."""
    comptime if storage == DType.int8:
        quantize_column(rebind[FloatView](column), depth, panel, lane)
    else:
        var cells = panel.bitcast[storage]()
        for k in range(depth):
            cells[cell[storage](k, lane)] = (column[k].cast[F32]() * factor).cast[storage]()
        for k in range(depth, padded_depth[storage](depth)):
            cells[cell[storage](k, lane)] = 0


def quantize_column(column: FloatView, depth: Int, panel: ByteView, lane: Int):
    """As `pack_column`, to int8."""
    comptime width = max(LANES, GROUP)
    var whole = depth // width * width
    var low, high = min_and_max(column, depth)
    var top = max(-low, high)
    if top == 0:
        top = 1
    var inverse = LARGEST_INT8 / top
    var cells = panel.offset(HEADER).bitcast[DType.int8]()
    var sums = SIMD[DType.int32, width](0)
    for k in range(0, whole, width):
        var q = round(column.load[width](k) * inverse).cast[DType.int32]()
        sums += q
        var bytes = q.cast[DType.int8]()
        var groups = bitcast[GROUPED, width // GROUP](bytes)
        comptime for g in range(width // GROUP):
            cells.offset(cell[DType.int8](k + GROUP * g, lane)).bitcast[GROUPED]()[0] = groups[g]
    var sum = sums.reduce_add()
    for k in range(whole, padded_depth[DType.int8](depth)):
        var q = Int32(0)
        if k < depth:
            q = round(column[k] * inverse).cast[DType.int32]()
        sum += q
        cells[cell[DType.int8](k, lane)] = q.cast[DType.int8]()
    var header = panel.bitcast[DType.float32]()
    header[lane] = top / LARGEST_INT8
    header[PANEL + lane] = Float32(sum)


def clear_column[storage: DType](depth: Int, panel: ByteView, lane: Int):
    """A column of zeros, past the last one of B."""
    comptime header = HEADER if storage == DType.int8 else 0
    var cells = panel.offset(header).bitcast[storage]()
    for k in range(padded_depth[storage](depth)):
        cells[cell[storage](k, lane)] = 0
    comptime if storage == DType.int8:
        var zero = Float32(0)
        panel.bitcast[DType.float32]()[lane] = zero
        panel.bitcast[DType.float32]()[PANEL + lane] = zero


def pack_columns[
    storage: DType
](source: FloatView, stride: Int, count: Int, depth: Int, packed: ByteView):
    """B [depth, count], whose columns lie `stride` apart, into panels: keys of a head."""
    comptime if tiled[storage]() or paired[storage]():
        pack_columns_turned[storage](source, stride, count, depth, packed)
        return
    for n in range(align_up(count, PANEL)):
        var panel = packed.offset(n // PANEL * panel_bytes[storage](depth))
        if n < count:
            pack_column[storage](source.offset(n * stride), depth, 1, panel, n % PANEL)
        else:
            clear_column[storage](depth, panel, n % PANEL)


def pack_columns_turned[
    storage: DType
](source: FloatView, stride: Int, count: Int, depth: Int, packed: ByteView):
    """As `pack_columns`, sixteen columns at a time, turned around in registers."""
    comptime WORDS = TILE_BYTES // 4
    comptime each = TILE_BYTES // size_of[Scalar[storage]]()
    comptime header = HEADER if storage == DType.int8 else 0
    var line = FloatView.allocate(each)
    for n in range(0, align_up(count, PANEL), WORDS):
        var panel = packed.offset(n // PANEL * panel_bytes[storage](depth))
        var scales = SIMD[F32, WORDS](0)
        var sums = SIMD[F32, WORDS](0)
        var inverses = SIMD[F32, WORDS](1)
        comptime if storage == DType.int8:
            for i in range(min(WORDS, count - n)):
                var low, high = min_and_max(source.offset((n + i) * stride), depth)
                var top = max(-low, high)
                if top == 0:
                    top = 1
                scales[i] = top / LARGEST_INT8
                inverses[i] = LARGEST_INT8 / top
        for k in range(0, depth, each):
            var words = Array[SIMD[DType.uint32, WORDS], WORDS](fill=SIMD[DType.uint32, WORDS](0))
            for i in range(min(WORDS, count - n)):
                var column = source.offset((n + i) * stride + k)
                if depth - k < each:
                    for j in range(each):
                        line[j] = column[j] if k + j < depth else 0
                    column = line
                var x = column.load[each]()
                comptime if storage == DType.int8:
                    var q = round(x * inverses[i]).cast[DType.int32]()
                    sums[i] += q.reduce_add().cast[F32]()
                    words[i] = bitcast[DType.uint32, WORDS](q.cast[DType.int8]())
                else:
                    words[i] = bitcast[DType.uint32, WORDS](x.cast[DType.bfloat16]())
            turn[WORDS](words)
            var target = panel.offset(header + 4 * (n % PANEL)).bitcast[DType.uint32]()
            comptime for i in range(WORDS):
                target.store((k // each * WORDS + i) * PANEL, words[i])
        comptime if storage == DType.int8:
            var place = panel.bitcast[DType.float32]().offset(n % PANEL)
            place.store(scales)
            place.store(PANEL, sums)
    line.free()


@always_inline
def turn[size: Int](mut words: Array[SIMD[DType.uint32, size], size]):
    """The transpose of a square: each round shuffles its rows like a deck of cards."""
    comptime half = size // 2
    comptime for _ in range(log2_floor(size)):
        var before = words.copy()
        comptime for i in range(half):
            var both = before[i].interleave(before[i + half])
            words[2 * i] = both.slice[size]()
            words[2 * i + 1] = both.slice[size, offset=size]()


def pack_rows[
    storage: DType
](source: FloatView, stride: Int, first: Int, last: Int, b: Matrix[storage]):
    """Rows `[first, last)` of B, which lie `stride` apart, into panels: values of a head.

    int8 takes all rows at once, pairs of bfloat16 whole tiles of them, the last of which is padded.
    """
    for p in range(b.panels()):
        var panel = b.panel(p)
        var width = min(PANEL, b.columns - p * PANEL)
        var corner = source.offset(p * PANEL)
        comptime if storage == DType.int8:
            quantize_rows(corner, stride, last - first, width, panel)
        else:
            var cells = panel.bitcast[storage]().offset(first * PANEL)
            comptime if paired[storage]():
                pair_rows(corner, stride, last - first, width, cells.bitcast[DType.bfloat16]())
                continue
            for k in range(last - first):
                for lane in range(width):
                    cells[k * PANEL + lane] = corner[k * stride + lane].cast[storage]()
                for lane in range(width, PANEL):
                    cells[k * PANEL + lane] = 0


def pair_rows(source: FloatView, stride: Int, depth: Int, width: Int, panel: View[DType.bfloat16]):
    """A panel of `width` columns from rows, to pairs of bfloat16."""
    for k in range(0, padded_depth[DType.bfloat16](depth), 2):
        var line = panel.offset(k * PANEL)
        for lane in range(0, PANEL, LANES):
            var pair = Array[SIMD[F32, LANES], 2](fill=SIMD[F32, LANES](0))
            comptime for j in range(2):
                var row = source.offset((k + j) * stride + lane)
                if k + j < depth and lane + LANES <= width:
                    pair[j] = row.load[LANES]()
                elif k + j < depth:
                    for i in range(max(0, width - lane)):
                        pair[j][i] = row[i]
            line.store(
                2 * lane, pair[0].cast[DType.bfloat16]().interleave(pair[1].cast[DType.bfloat16]())
            )


def quantize_rows(source: FloatView, stride: Int, depth: Int, width: Int, panel: ByteView):
    """A panel of `width` columns from rows, to int8."""
    var header = panel.bitcast[DType.float32]()
    var cells = panel.offset(HEADER).bitcast[DType.int8]()
    for start in range(0, PANEL, LANES):
        if start + LANES > width:
            for lane in range(start, min(start + LANES, PANEL)):
                if lane >= width:
                    clear_column[DType.int8](depth, panel, lane)
                    continue
                var top = Float32(0)
                for k in range(depth):
                    top = max(top, abs(source[k * stride + lane]))
                if top == 0:
                    top = 1
                var sum = Int32(0)
                for k in range(padded_depth[DType.int8](depth)):
                    var q = Int32(0)
                    if k < depth:
                        var x = source[k * stride + lane]
                        q = round(x * (LARGEST_INT8 / top)).cast[DType.int32]()
                    sum += q
                    cells[cell[DType.int8](k, lane)] = q.cast[DType.int8]()
                header[lane] = top / LARGEST_INT8
                header[PANEL + lane] = Float32(sum)
            continue
        var column = source.offset(start)
        var tops = SIMD[F32, LANES](0)
        for k in range(depth):
            tops = max(tops, abs(column.load[LANES](k * stride)))
        tops = tops.eq(0).select(SIMD[F32, LANES](1), tops)
        var inverse = LARGEST_INT8 / tops
        var sums = SIMD[DType.int32, LANES](0)
        for group in range(0, padded_depth[DType.int8](depth), GROUP):
            # The bytes of a column, lowest first.
            comptime wide = DType.int64 if BLOCKS else DType.int32
            var together = SIMD[wide, LANES](0)
            comptime for j in range(GROUP):
                if group + j < depth:
                    var x = column.load[LANES]((group + j) * stride)
                    var q = round(x * inverse).cast[DType.int32]()
                    sums += q
                    together |= (q & 255).cast[wide]() << Scalar[wide](8 * j)
            cells.offset(cell[DType.int8](group, start)).bitcast[GROUPED]().store(
                together.cast[GROUPED]()
            )
        header.store(start, tops / LARGEST_INT8)
        header.store(PANEL + start, sums.cast[F32]())
