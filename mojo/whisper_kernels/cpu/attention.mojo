"""Scaled dot-product attention over keys and values packed once per window.

The encoder's self-attention and the decoder's cross-attention are one kernel:
all queries of an item (frames, or tokens of every beam) read the same keys and
values, which are two matrices in panels: keys [head size, frames], then values
[frames, head size]. A head takes `head_bytes`, enough for the longest window.
Scores exist for one block of queries at a time.

With int8 keys and values, the weights of the values are integers of 16 bits: a long tail of small
weights is kept. A processor that multiplies bytes takes them as two rows of bytes. The tile unit
has bfloat16 as well, in which the encoder attends where there is such a unit.
"""

from std.math import align_up, ceildiv, exp, sqrt
from std.memory.alloc import unsafe_alloc

from ..common.exp import LOG2_OF_E, exp2_fast
from ..common.extremes import largest
from .gemm import multiply
from ..common.simd import F32, LANES
from .panels import DOTS, GROUP, PANEL, TILES, Matrix, Rows, panel_bytes
from .pack import pack_columns, pack_rows
from .strips import Strips, grouped
from ..common.views import Bytes, Floats
from .amx.attention import TileAttention, query_scale
from .amx.rows import tile_place
from .amx.tiles import BLOCK_ROWS

comptime WIDE = min(2 * LANES, PANEL)
"""Weights made at once, so that they share the loads of constants."""
comptime PLANES = 2 if DOTS else 1
"""Rows of integers that a row of weights is split into."""
comptime FULL = Float32(65535 if DOTS else 32767)
"""The weight of a row's highest score, as an integer."""


def head_bytes[storage: DType](frames: Int, head_size: Int) -> Int:
    """Bytes of one head's keys and values of so many frames."""
    return ceildiv(frames, PANEL) * panel_bytes[storage](head_size) + ceildiv(
        head_size, PANEL
    ) * panel_bytes[storage](frames)


def encoder_memory(storage: DType) -> DType:
    """What the encoder keeps keys and values in, for matrices of a type."""
    if TILES and storage != DType.float32:
        return DType.bfloat16
    return DType.int8 if storage == DType.int8 else DType.float32


struct KeysValues[storage: DType](ImplicitlyCopyable):
    """Where one head's keys and values lie."""

    var keys: Matrix[Self.storage]
    var values: Matrix[Self.storage]

    def __init__(out self, packed: Bytes, frames: Int, head_size: Int):
        self.keys = Matrix[Self.storage](packed, head_size, frames)
        self.values = Matrix[Self.storage](
            packed.unsafe_offset(self.keys.bytes()), frames, head_size
        )

    def pack(self, keys: Floats, values: Floats, stride: Int):
        """Fills them from rows, one a frame, `stride` apart."""
        self.pack_keys(keys, stride, 0, self.keys.columns)
        self.pack_values(values, stride, 0, self.values.depth)

    def pack_keys(self, rows: Floats, stride: Int, first: Int, last: Int):
        """Keys of frames `[first, last)`, from the beginning of a panel on."""
        var panel = self.keys.panel(first // PANEL)
        pack_columns[Self.storage](rows, stride, last - first, self.keys.depth, panel)

    def pack_values(self, rows: Floats, stride: Int, first: Int, last: Int):
        """Values of frames `[first, last)`, as `pack_rows` takes them."""
        pack_rows(rows, stride, first, last, self.values)


struct AttentionScratch[storage: DType]:
    """What a thread needs to attend."""

    comptime by_tiles = TILES and Self.storage == DType.bfloat16
    comptime queries_each = BLOCK_ROWS if Self.by_tiles else 4 * Strips[Self.storage].rows_each
    """Queries of a block: their scores over 1500 frames stay in L2."""

    var tiles: TileAttention
    """The others' memory is not touched where this is used."""
    var queries: Strips[Self.storage]
    var scores: Floats
    var weights: Strips[Self.storage]
    var sums: Floats

    def __init__(out self, frames: Int, head_size: Int):
        self.tiles = TileAttention(head_size)
        self.queries = Strips[Self.storage](Self.queries_each, head_size)
        self.scores = unsafe_alloc[Float32](Self.queries_each * align_up(frames, PANEL), alignment=64)
        # A vector of weights may reach past the last frame.
        self.weights = Strips[Self.storage](PLANES * Self.queries_each, align_up(frames, PANEL))
        self.sums = unsafe_alloc[Float32](2 * Self.queries_each * head_size, alignment=64)

    def __deinit__(deinit self):
        self.scores.unsafe_free()
        self.sums.unsafe_free()

    def attend(
        mut self,
        queries: Rows,
        first: Int,
        last: Int,
        memory: KeysValues[Self.storage],
        output: Floats,
        output_stride: Int,
    ):
        """Attention of queries `[first, last)` of one head, at most `queries_each`; output row i at
        `output[i * output_stride]`."""
        var count = last - first
        var head_size = memory.keys.depth
        var frames = memory.keys.columns
        var stride = align_up(frames, PANEL)
        var scale = 1 / sqrt(Float32(head_size))
        var rows = output.unsafe_offset(first * output_stride)
        comptime if Self.by_tiles:
            self.queries.prepare(queries, first, last, head_size, query_scale(head_size))
            self.attend_strips(self.queries.strip(0), count, memory, rows, output_stride)
            return
        comptime if Strips[Self.storage].quantized:
            self.queries.prepare(queries, first, last, head_size, scale * LOG2_OF_E)
            multiply(self.queries, memory.keys, 0, memory.keys.panels(), self.scores, stride)
            self.weigh(count, frames, stride)
            comptime if PLANES == 1:
                multiply(
                    self.weights, memory.values, 0, memory.values.panels(), rows, output_stride
                )
                return
            multiply(
                self.weights, memory.values, 0, memory.values.panels(), self.sums, head_size
            )
            for i in range(count):
                var high = self.sums.unsafe_offset(2 * i * head_size)
                var low = high.unsafe_offset(head_size)
                var row = rows.unsafe_offset(i * output_stride)
                for k in range(head_size):
                    row[unsafe_offset=k] = high[unsafe_offset=k] + low[unsafe_offset=k]
        else:
            self.queries.prepare(queries, first, last, head_size, scale)
            multiply(self.queries, memory.keys, 0, memory.keys.panels(), self.scores, stride)
            for i in range(count):
                self.sums[unsafe_offset=i] = exponentiate(
                    self.scores.unsafe_offset(i * stride), frames
                )
            self.weights.prepare(Rows(self.scores, stride, count), 0, count, frames)
            multiply(self.weights, memory.values, 0, memory.values.panels(), rows, output_stride)
            self.divide(rows, output_stride, count, head_size)

    def attend_strips(
        mut self,
        queries: Bytes,
        count: Int,
        memory: KeysValues[Self.storage],
        rows: Floats,
        stride: Int,
    ):
        """Attention of queries that are strips already, by the tile unit; output rows `stride`
        apart."""
        self.tiles.attend(
            queries,
            count,
            rebind[Matrix[DType.bfloat16]](memory.keys),
            rebind[Matrix[DType.bfloat16]](memory.values),
            rows,
            stride,
        )

    def divide(self, rows: Floats, stride: Int, count: Int, head_size: Int):
        """Divides each row by its sum of weights."""
        for i in range(count):
            var row = rows.unsafe_offset(i * stride)
            var factor = 1 / self.sums[unsafe_offset=i]
            var whole = head_size // LANES * LANES
            for k in range(0, whole, LANES):
                var x = row.unsafe_offset(k).unsafe_load[width=LANES]()
                row.unsafe_offset(k).unsafe_store(x * factor)
            for k in range(whole, head_size):
                row[unsafe_offset=k] *= factor

    def weigh(mut self, count: Int, frames: Int, stride: Int):
        """The weights of the scores: `PLANES` rows of integers for each row, with the scales that
        make them a softmax."""
        comptime each = Strips[Self.storage].rows_each
        self.weights.rows = PLANES * count
        self.weights.depth = frames
        for i in range(count):
            var row = self.scores.unsafe_offset(i * stride)
            for k in range(frames, stride):
                row[unsafe_offset=k] = Float32.MIN_FINITE
            var first = PLANES * i
            var start = first // each * each
            var strip = self.weights.strip(start)
            var height = self.weights.height(start)
            var scale = 1 / weigh_row(row, stride, strip, first - start, height)
            comptime for plane in range(PLANES - 1, -1, -1):
                self.weights.scales[unsafe_offset=first + plane] = scale
                self.weights.zeros[unsafe_offset=first + plane] = 0
                scale *= 256


def weigh_row(row: Floats, frames: Int, strip: Bytes, index: Int, height: Int) -> Float32:
    """`FULL * 2^(row - max(row))` as rows of a strip from `index` on, high bytes first; returns the
    sum. `height` is the strip's, where it is not the tile unit's."""
    var top = largest(row, frames)
    var sums = SIMD[DType.int32, WIDE](0)
    for k in range(0, frames, WIDE):
        var x = row.unsafe_offset(k).unsafe_load[width=WIDE]() - top
        var q = (exp2_fast(x) * FULL + 0.5).cast[DType.int32]()
        sums += q
        comptime if TILES:
            strip.unsafe_offset(tile_place(index, k)).unsafe_store((q >> 8).cast[DType.uint8]())
            strip.unsafe_offset(tile_place(index + 1, k)).unsafe_store(q.cast[DType.uint8]())
        else:
            var high = grouped(q >> 8)
            var low = grouped(q)
            comptime for g in range(WIDE // GROUP):
                var group = strip.unsafe_bitcast[UInt32]().unsafe_offset(
                    (k // GROUP + g) * height + index
                )
                comptime if PLANES == 2:
                    group.unsafe_store(SIMD[DType.uint32, 2](high[g], low[g]))
                else:
                    group[unsafe_offset=0] = low[g]
    return sums.reduce_add().cast[F32]()


def exponentiate(row: Floats, count: Int) -> Float32:
    """`row = exp(row - max(row))`; returns the sum."""
    var whole = count // LANES * LANES
    var top = largest(row, count)
    var sums = SIMD[F32, LANES](0)
    for k in range(0, whole, LANES):
        var e = exp(row.unsafe_offset(k).unsafe_load[width=LANES]() - top)
        row.unsafe_offset(k).unsafe_store(e)
        sums += e
    var total = sums.reduce_add()
    for k in range(whole, count):
        var e = exp(row[unsafe_offset=k] - top)
        row[unsafe_offset=k] = e
        total += e
    return total
