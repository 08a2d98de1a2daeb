"""Scaled dot-product attention over keys and values packed once per window.

The encoder's self-attention and the decoder's cross-attention are one kernel:
all queries of an item (frames, or tokens of every beam) read the same keys and
values, which are two matrices in panels: keys [head size, frames], then values
[frames, head size]. A head takes `head_bytes`, enough for the longest window.
Scores exist for one block of queries at a time.

With int8 keys and values, the weights of the values are integers (attention_weights.mojo). AMX
has bfloat16 as well, in which the encoder attends where there is such a unit. In bfloat16, powers
of 2 need no more than its precision.
"""

from std.math import align_up, ceildiv, exp, sqrt

from ..common.exp import LOG2_OF_E, exp2_fast
from ..common.min_max import largest
from ..common.simd import BF16, F32, LANES
from ..common.views import ByteView, FloatView
from .amx.attention import TileAttention, query_scale
from .amx.tiles import BLOCK_ROWS
from .attention_weights import BYTES, PLANES, SEGMENT, weigh, weigh_by_segments
from .gemm import multiply
from .pack_panels import pack_columns, pack_rows
from .panels import PANEL, Matrix, Rows, panel_bytes
from .strips import Strips
from .target import PAIRS, TILES, paired, tiled


def head_bytes[storage: DType](frames: Int, head_size: Int) -> Int:
    """Bytes of one head's keys and values of so many frames."""
    return ceildiv(frames, PANEL) * panel_bytes[storage](head_size) + ceildiv(
        head_size, PANEL
    ) * panel_bytes[storage](frames)


def encoder_kv_type(storage: DType) -> DType:
    """What the encoder keeps keys and values in, for matrices of a type."""
    if (PAIRS and storage == BF16) or (TILES and storage == DType.int8):
        return BF16
    return DType.int8 if storage == DType.int8 else DType.float32


struct KeysValues[storage: DType](ImplicitlyCopyable):
    """Where one head's keys and values lie."""

    var keys: Matrix[Self.storage]
    var values: Matrix[Self.storage]

    def __init__(out self, packed: ByteView, frames: Int, head_size: Int):
        self.keys = Matrix[Self.storage](packed, head_size, frames)
        self.values = Matrix[Self.storage](packed.offset(self.keys.bytes()), frames, head_size)

    def pack(self, keys: FloatView, values: FloatView, stride: Int):
        """Fills them from rows, one a frame, `stride` apart."""
        self.pack_keys(keys, stride, 0, self.keys.columns)
        self.pack_values(values, stride, 0, self.values.depth)

    def pack_keys(self, rows: FloatView, stride: Int, first: Int, last: Int):
        """Keys of frames `[first, last)`, from the beginning of a panel on."""
        var panel = self.keys.panel(first // PANEL)
        pack_columns[Self.storage](rows, stride, last - first, self.keys.depth, panel)

    def pack_values(self, rows: FloatView, stride: Int, first: Int, last: Int):
        """Values of frames `[first, last)`, as `pack_rows` takes them."""
        pack_rows(rows, stride, first, last, self.values)


struct AttentionScratch[storage: DType, coarse: Bool = False]:
    """What a thread needs to attend; `coarse`, with weights of bytes where that saves time."""

    comptime segmented = Self.coarse and BYTES and not tiled[Self.storage]()
    comptime planes = 1 if Self.segmented else PLANES
    comptime by_tiles = TILES and Self.storage == DType.bfloat16
    comptime queries_each = BLOCK_ROWS if Self.by_tiles else 4 * Strips[Self.storage].rows_each
    """Queries of a block: their scores over 1500 frames stay in L2."""

    var tiles: TileAttention
    """The others' memory is not touched where this is used."""
    var queries: Strips[Self.storage]
    var scores: FloatView
    var weights: Strips[Self.storage]
    var sums: FloatView

    def __init__(out self, frames: Int, head_size: Int):
        self.tiles = TileAttention(head_size)
        self.queries = Strips[Self.storage](Self.queries_each, head_size)
        self.scores = FloatView.allocate(Self.queries_each * align_up(frames, PANEL))
        # A vector of weights may reach past the last frame.
        comptime segment = SEGMENT if Self.segmented else 0
        self.weights = Strips[Self.storage](
            Self.planes * Self.queries_each, align_up(frames, PANEL), segment=segment
        )
        self.sums = FloatView.allocate(2 * Self.queries_each * head_size)

    def __deinit__(deinit self):
        self.scores.free()
        self.sums.free()

    def attend(
        mut self,
        queries: Rows,
        first: Int,
        last: Int,
        kv: KeysValues[Self.storage],
        output: FloatView,
        output_stride: Int,
    ):
        """Attention of queries `[first, last)` of one head, at most `queries_each`; output row i at
        `output[i * output_stride]`."""
        var count = last - first
        var head_size = kv.keys.depth
        var frames = kv.keys.columns
        var stride = align_up(frames, PANEL)
        var scale = 1 / sqrt(Float32(head_size))
        var rows = output.offset(first * output_stride)
        comptime if Self.by_tiles:
            self.queries.prepare(queries, first, last, head_size, query_scale(head_size))
            self.attend_strips(self.queries.strip(0), count, kv, rows, output_stride)
            return
        comptime if Strips[Self.storage].quantized:
            self.queries.prepare(queries, first, last, head_size, scale * LOG2_OF_E)
            multiply(self.queries, kv.keys, 0, kv.keys.panels(), self.scores, stride)
            comptime if Self.segmented:
                weigh_by_segments(self.scores, count, frames, stride, self.weights)
            else:
                weigh(self.scores, count, frames, stride, self.weights)
            comptime if Self.planes == 1:
                multiply(self.weights, kv.values, 0, kv.values.panels(), rows, output_stride)
                return
            multiply(self.weights, kv.values, 0, kv.values.panels(), self.sums, head_size)
            for i in range(count):
                var high = self.sums.offset(2 * i * head_size)
                var low = high.offset(head_size)
                var row = rows.offset(i * output_stride)
                for k in range(head_size):
                    row[k] = high[k] + low[k]
        else:
            comptime fast = paired[Self.storage]()
            var factor = scale * LOG2_OF_E if fast else scale
            self.queries.prepare(queries, first, last, head_size, factor)
            multiply(self.queries, kv.keys, 0, kv.keys.panels(), self.scores, stride)
            for i in range(count):
                self.sums[i] = exponentiate[fast](self.scores.offset(i * stride), frames)
            self.weights.prepare(Rows(self.scores, stride, count), 0, count, frames)
            multiply(self.weights, kv.values, 0, kv.values.panels(), rows, output_stride)
            self.divide(rows, output_stride, count, head_size)

    def attend_strips(
        mut self,
        queries: ByteView,
        count: Int,
        kv: KeysValues[Self.storage],
        rows: FloatView,
        stride: Int,
    ):
        """Attention of queries that are strips already, by AMX; output rows `stride`
        apart."""
        self.tiles.attend(
            queries,
            count,
            rebind[Matrix[DType.bfloat16]](kv.keys),
            rebind[Matrix[DType.bfloat16]](kv.values),
            rows,
            stride,
        )

    def divide(self, rows: FloatView, stride: Int, count: Int, head_size: Int):
        """Divides each row by its sum of weights."""
        for i in range(count):
            var row = rows.offset(i * stride)
            var factor = 1 / self.sums[i]
            var whole = head_size // LANES * LANES
            for k in range(0, whole, LANES):
                var x = row.load[LANES](k)
                row.store(k, x * factor)
            for k in range(whole, head_size):
                row[k] *= factor


@always_inline
def power[fast: Bool, width: Int](x: SIMD[F32, width]) -> SIMD[F32, width]:
    """`e^x`; or, fast, `2^x` to more than bfloat16 keeps, for x <= 0."""
    comptime if fast:
        return exp2_fast(x)
    return exp(x)


def exponentiate[fast: Bool = False](row: FloatView, count: Int) -> Float32:
    """`row = power(row - max(row))`; returns the sum."""
    var whole = count // LANES * LANES
    var top = largest(row, count)
    var sums = SIMD[F32, LANES](0)
    for k in range(0, whole, LANES):
        var e = power[fast](row.load[LANES](k) - top)
        row.store(k, e)
        sums += e
    var total = sums.reduce_add()
    for k in range(whole, count):
        var e = power[fast, 1](row[k] - top)
        row[k] = e
        total += e
    return total
