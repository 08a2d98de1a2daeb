"""Numbers into panels, by columns and by rows: keys and values of a window, and what weights need.

int8 panels are quantised column by column, `w = scale * q` with the largest |q| at 127, as
CTranslate2 quantises the weights of a linear layer.
"""

from std.bit import log2_floor
from std.collections import Array
from std.math import align_up, round
from std.memory import bitcast
from std.memory.alloc import unsafe_alloc
from std.sys import size_of

from ..common.extremes import extremes
from ..common.simd import F32, LANES
from .panels import DOTS, GROUP, HEADER, PANEL, TILE_BYTES, Matrix, cell, padded_depth, panel_bytes, tiled
from ..common.views import Bytes, Floats, Numbers

comptime LARGEST = Float32(127)
comptime GROUPED = DType.uint32 if DOTS else DType.uint16
"""Holds a group of bytes."""


def pack_column[
    storage: DType, dtype: DType
](column: Numbers[dtype], depth: Int, factor: Float32, panel: Bytes, lane: Int):
    """A column of B, contiguous in memory, times `factor`, as column `lane` of a panel."""
    comptime if storage == DType.int8:
        quantize_column[dtype](column, depth, factor, panel, lane)
    else:
        var cells = panel.unsafe_bitcast[Scalar[storage]]()
        for k in range(depth):
            cells[unsafe_offset=cell[storage](k, lane)] = (
                column[unsafe_offset=k].cast[F32]() * factor
            ).cast[storage]()
        for k in range(depth, padded_depth[storage](depth)):
            cells[unsafe_offset=cell[storage](k, lane)] = 0


def quantize_column[
    dtype: DType
](column: Numbers[dtype], depth: Int, factor: Float32, panel: Bytes, lane: Int):
    """As `pack_column`, to int8; what is int8 already stays as it is, `factor` its scale."""
    var whole = depth // LANES * LANES
    var scale = factor
    var inverse = Float32(1)
    comptime if dtype != DType.int8:
        var tops = SIMD[F32, LANES](0)
        for k in range(0, whole, LANES):
            tops = max(tops, abs(column.unsafe_offset(k).unsafe_load[width=LANES]().cast[F32]()))
        var top = tops.reduce_max()
        for k in range(whole, depth):
            top = max(top, abs(column[unsafe_offset=k].cast[F32]()))
        if top == 0:
            top = 1
        scale = top * factor / LARGEST
        inverse = LARGEST / top
    var cells = panel.unsafe_offset(HEADER).unsafe_bitcast[Int8]()
    var sums = SIMD[DType.int32, LANES](0)
    for k in range(0, whole, LANES):
        var x = column.unsafe_offset(k).unsafe_load[width=LANES]().cast[F32]()
        var q = round(x * inverse).cast[DType.int32]()
        sums += q
        var bytes = q.cast[DType.int8]()
        var groups = bitcast[GROUPED, LANES // GROUP](bytes)
        comptime for g in range(LANES // GROUP):
            cells.unsafe_offset(cell[DType.int8](k + GROUP * g, lane)).unsafe_bitcast[Scalar[GROUPED]]()[
                unsafe_offset=0
            ] = groups[g]
    var sum = sums.reduce_add()
    for k in range(whole, padded_depth[DType.int8](depth)):
        var q = Int32(0)
        if k < depth:
            q = round(column[unsafe_offset=k].cast[F32]() * inverse).cast[DType.int32]()
        sum += q
        cells[unsafe_offset=cell[DType.int8](k, lane)] = q.cast[DType.int8]()
    var header = panel.unsafe_bitcast[Float32]()
    header[unsafe_offset=lane] = scale
    header[unsafe_offset=PANEL + lane] = Float32(sum)


def clear_column[storage: DType](depth: Int, panel: Bytes, lane: Int):
    """A column of zeros, past the last one of B."""
    comptime header = HEADER if storage == DType.int8 else 0
    var cells = panel.unsafe_offset(header).unsafe_bitcast[Scalar[storage]]()
    for k in range(padded_depth[storage](depth)):
        cells[unsafe_offset=cell[storage](k, lane)] = 0
    comptime if storage == DType.int8:
        var zero = Float32(0)
        panel.unsafe_bitcast[Float32]()[unsafe_offset=lane] = zero
        panel.unsafe_bitcast[Float32]()[unsafe_offset=PANEL + lane] = zero


def pack_columns[
    storage: DType
](source: Floats, stride: Int, count: Int, depth: Int, packed: Bytes):
    """B [depth, count], whose columns lie `stride` apart, into panels: keys of a head."""
    comptime if tiled[storage]():
        pack_columns_tiled[storage](source, stride, count, depth, packed)
        return
    for n in range(align_up(count, PANEL)):
        var panel = packed.unsafe_offset(n // PANEL * panel_bytes[storage](depth))
        if n < count:
            pack_column[storage](source.unsafe_offset(n * stride), depth, 1, panel, n % PANEL)
        else:
            clear_column[storage](depth, panel, n % PANEL)


def pack_columns_tiled[
    storage: DType
](source: Floats, stride: Int, count: Int, depth: Int, packed: Bytes):
    """As `pack_columns`, sixteen columns at a time, turned around in registers."""
    comptime WORDS = TILE_BYTES // 4
    comptime each = TILE_BYTES // size_of[Scalar[storage]]()
    comptime header = HEADER if storage == DType.int8 else 0
    var line = unsafe_alloc[Float32](each)
    for n in range(0, align_up(count, PANEL), WORDS):
        var panel = packed.unsafe_offset(n // PANEL * panel_bytes[storage](depth))
        var scales = SIMD[F32, WORDS](0)
        var sums = SIMD[F32, WORDS](0)
        var inverses = SIMD[F32, WORDS](1)
        comptime if storage == DType.int8:
            for i in range(min(WORDS, count - n)):
                var low, high = extremes(source.unsafe_offset((n + i) * stride), depth)
                var top = max(-low, high)
                if top == 0:
                    top = 1
                scales[i] = top / LARGEST
                inverses[i] = LARGEST / top
        for k in range(0, depth, each):
            var words = Array[SIMD[DType.uint32, WORDS], WORDS](fill=SIMD[DType.uint32, WORDS](0))
            for i in range(min(WORDS, count - n)):
                var column = source.unsafe_offset((n + i) * stride + k)
                if depth - k < each:
                    for j in range(each):
                        line[unsafe_offset=j] = column[unsafe_offset=j] if k + j < depth else 0
                    column = line
                var x = column.unsafe_load[width=each]()
                comptime if storage == DType.int8:
                    var q = round(x * inverses[i]).cast[DType.int32]()
                    sums[i] += q.reduce_add().cast[F32]()
                    words[i] = bitcast[DType.uint32, WORDS](q.cast[DType.int8]())
                else:
                    words[i] = bitcast[DType.uint32, WORDS](x.cast[DType.bfloat16]())
            turn[WORDS](words)
            var target = panel.unsafe_offset(header + 4 * (n % PANEL)).unsafe_bitcast[UInt32]()
            comptime for i in range(WORDS):
                target.unsafe_offset((k // each * WORDS + i) * PANEL).unsafe_store(words[i])
        comptime if storage == DType.int8:
            var place = panel.unsafe_bitcast[Float32]().unsafe_offset(n % PANEL)
            place.unsafe_store(scales)
            place.unsafe_offset(PANEL).unsafe_store(sums)
    line.unsafe_free()


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
](source: Floats, stride: Int, first: Int, last: Int, b: Matrix[storage]):
    """Rows `[first, last)` of B, which lie `stride` apart, into panels: values of a head.

    int8 takes all rows at once, the tile unit whole tiles of them, the last of which is padded.
    """
    for p in range(b.panels()):
        var panel = b.panel(p)
        var width = min(PANEL, b.columns - p * PANEL)
        var corner = source.unsafe_offset(p * PANEL)
        comptime if storage == DType.int8:
            quantize_rows(corner, stride, last - first, width, panel)
        else:
            var cells = panel.unsafe_bitcast[Scalar[storage]]().unsafe_offset(first * PANEL)
            comptime if tiled[storage]():
                pair_rows(corner, stride, last - first, width, cells.unsafe_bitcast[BFloat16]())
                continue
            for k in range(last - first):
                for lane in range(width):
                    cells[unsafe_offset=k * PANEL + lane] = corner[
                        unsafe_offset=k * stride + lane
                    ].cast[storage]()
                for lane in range(width, PANEL):
                    cells[unsafe_offset=k * PANEL + lane] = 0


def pair_rows(
    source: Floats, stride: Int, depth: Int, width: Int, panel: Numbers[DType.bfloat16]
):
    """A panel of `width` columns from rows, to pairs of bfloat16."""
    for k in range(0, padded_depth[DType.bfloat16](depth), 2):
        var line = panel.unsafe_offset(k * PANEL)
        for lane in range(0, PANEL, LANES):
            var pair = Array[SIMD[F32, LANES], 2](fill=SIMD[F32, LANES](0))
            comptime for j in range(2):
                var row = source.unsafe_offset((k + j) * stride + lane)
                if k + j < depth and lane + LANES <= width:
                    pair[j] = row.unsafe_load[width=LANES]()
                elif k + j < depth:
                    for i in range(max(0, width - lane)):
                        pair[j][i] = row[unsafe_offset=i]
            line.unsafe_offset(2 * lane).unsafe_store(
                pair[0].cast[DType.bfloat16]().interleave(pair[1].cast[DType.bfloat16]())
            )


def quantize_rows(source: Floats, stride: Int, depth: Int, width: Int, panel: Bytes):
    """A panel of `width` columns from rows, to int8."""
    var header = panel.unsafe_bitcast[Float32]()
    var cells = panel.unsafe_offset(HEADER).unsafe_bitcast[Int8]()
    for start in range(0, PANEL, LANES):
        if start + LANES > width:
            for lane in range(start, min(start + LANES, PANEL)):
                if lane >= width:
                    clear_column[DType.int8](depth, panel, lane)
                    continue
                var top = Float32(0)
                for k in range(depth):
                    top = max(top, abs(source[unsafe_offset=k * stride + lane]))
                if top == 0:
                    top = 1
                var sum = Int32(0)
                for k in range(padded_depth[DType.int8](depth)):
                    var q = Int32(0)
                    if k < depth:
                        var x = source[unsafe_offset=k * stride + lane]
                        q = round(x * (LARGEST / top)).cast[DType.int32]()
                    sum += q
                    cells[unsafe_offset=cell[DType.int8](k, lane)] = q.cast[DType.int8]()
                header[unsafe_offset=lane] = top / LARGEST
                header[unsafe_offset=PANEL + lane] = Float32(sum)
            continue
        var column = source.unsafe_offset(start)
        var tops = SIMD[F32, LANES](0)
        for k in range(depth):
            tops = max(tops, abs(column.unsafe_offset(k * stride).unsafe_load[width=LANES]()))
        tops = tops.eq(0).select(SIMD[F32, LANES](1), tops)
        var inverse = LARGEST / tops
        var sums = SIMD[DType.int32, LANES](0)
        for group in range(0, padded_depth[DType.int8](depth), GROUP):
            # The bytes of a column, lowest first.
            var together = SIMD[DType.int32, LANES](0)
            comptime for j in range(GROUP):
                if group + j < depth:
                    var x = column.unsafe_offset((group + j) * stride).unsafe_load[width=LANES]()
                    var q = round(x * inverse).cast[DType.int32]()
                    sums += q
                    together |= (q & 255) << Int32(8 * j)
            cells.unsafe_offset(cell[DType.int8](group, start)).unsafe_bitcast[
                Scalar[GROUPED]
            ]().unsafe_store(together.cast[GROUPED]())
        header.unsafe_offset(start).unsafe_store(tops / LARGEST)
        header.unsafe_offset(PANEL + start).unsafe_store(sums.cast[F32]())
