"""Attention in bfloat16 by the tile unit, in one pass over keys and values.

The weights of a softmax are `2^(score - top)`, over their sum, whatever `top` is, as long as no
number leaves the range of float32. It need not be the largest score, so that the others need not
be known beforehand: the largest of the first few is taken, and, should a sum show that it is far
below the largest of all, that one instead, once more from the start. So scores are made for one
panel of keys, and weights for some; they stay in the L1 cache.

Source: Dao et al., "FlashAttention", 2022, which corrects the top as it goes.
"""

from std.math import align_up, ceildiv, sqrt
from std.memory import bitcast
from std.memory.alloc import unsafe_alloc

from .exp2 import LOG2_OF_E, exp2_half
from .extremes import larger
from .matrix import F32, PANEL, TILE_BYTES, TILE_ROWS, Matrix, Rows, padded_depth
from .strips import Strips
from .tensors import Bytes, Floats
from .tiles import BLOCK_ROWS, add_products, load_block, store_block, zero_block

comptime HALF = DType.bfloat16
comptime LINE = 4 * PANEL
"""Bytes of a row of scores."""
comptime STEP_BYTES = TILE_ROWS * TILE_BYTES
"""Of the weights of 16 queries for a panel of keys: a tile."""
comptime CHUNK = 8
"""Panels of keys whose weights are multiplied with values at once."""
comptime FIRST = 2
"""Panels of keys that a guess of the top is made from."""
comptime MOST = Float32(1 << 60)
"""A sum of weights above this may have lost something."""


struct TileAttention:
    """A thread's room for a block of queries."""

    var queries: Strips[HALF]
    var starts: Floats
    """[2, BLOCK_ROWS, PANEL]: `-top` of each row, which scores are added to; then the same for the
    last panel, with what is no key left without weight."""
    var scores: Floats
    """[2, BLOCK_ROWS, PANEL], of two panels in turns."""
    var weights: Bytes
    """Two strips of `CHUNK` tiles."""
    var sums: Floats
    """[BLOCK_ROWS, PANEL], of weights, lane by lane."""
    var attended: Floats
    """[BLOCK_ROWS, head size], to whole panels."""

    def __init__(out self, head_size: Int):
        comptime block = BLOCK_ROWS * PANEL
        self.queries = Strips[HALF](BLOCK_ROWS, head_size)
        self.starts = unsafe_alloc[Float32](2 * block, alignment=64)
        self.scores = unsafe_alloc[Float32](2 * block, alignment=64)
        self.weights = unsafe_alloc[UInt8](2 * CHUNK * STEP_BYTES, alignment=64)
        self.sums = unsafe_alloc[Float32](block, alignment=64)
        self.attended = unsafe_alloc[Float32](
            BLOCK_ROWS * align_up(head_size, PANEL), alignment=64
        )

    def __deinit__(deinit self):
        self.starts.unsafe_free()
        self.scores.unsafe_free()
        self.weights.unsafe_free()
        self.sums.unsafe_free()
        self.attended.unsafe_free()

    def attend(
        mut self,
        queries: Rows,
        first: Int,
        last: Int,
        keys: Matrix[HALF],
        values: Matrix[HALF],
        output: Floats,
        stride: Int,
    ):
        """Attention of queries `[first, last)`, at most `BLOCK_ROWS`; output has one row each."""
        var scale = LOG2_OF_E / sqrt(Float32(keys.depth))
        self.queries.prepare(queries, first, last, keys.depth, scale)
        if last - first > TILE_ROWS:
            self._attend[True](keys, values)
        else:
            self._attend[False](keys, values)
        for row in range(last - first):
            var factor = 1 / self._sum(row)
            var source = self.attended.unsafe_offset(row * align_up(keys.depth, PANEL))
            var target = output.unsafe_offset(row * stride)
            for k in range(keys.depth):
                target[unsafe_offset=k] = factor * source[unsafe_offset=k]

    def _attend[tall: Bool](self, keys: Matrix[HALF], values: Matrix[HALF]):
        self._find_tops[tall](keys, min(FIRST, keys.panels()))
        if not self._pass_over[tall](keys, values):
            self._find_tops[tall](keys, keys.panels())
            _ = self._pass_over[tall](keys, values)

    def _find_tops[tall: Bool](self, keys: Matrix[HALF], panels: Int):
        """Makes `starts` from the largest scores of the first panels."""
        comptime V = SIMD[F32, PANEL]
        var tops = self.sums
        for row in range(self.queries.rows):
            tops.unsafe_offset(row * PANEL).unsafe_store(V(Float32.MIN_FINITE))
        for panel in range(panels):
            zero_block[tall]()
            self._score[tall](keys, panel)
            var count = min(PANEL, keys.columns - panel * PANEL)
            for row in range(self.queries.rows):
                var x = self._scores(panel).unsafe_offset(row * PANEL)
                var top = tops.unsafe_offset(row * PANEL)
                for k in range(count, PANEL):
                    x[unsafe_offset=k] = Float32.MIN_FINITE
                top.unsafe_store(
                    larger[PANEL](x.unsafe_load[width=PANEL](), top.unsafe_load[width=PANEL]())
                )
        var last_count = keys.columns - (keys.panels() - 1) * PANEL
        for row in range(self.queries.rows):
            var start = self.starts.unsafe_offset(row * PANEL)
            var top = tops.unsafe_offset(row * PANEL).unsafe_load[width=PANEL]().reduce_max()
            start.unsafe_store(V(-top))
            var last = start.unsafe_offset(BLOCK_ROWS * PANEL)
            last.unsafe_store(V(-top))
            for k in range(last_count, PANEL):
                last[unsafe_offset=k] = Float32.MIN_FINITE

    def _pass_over[tall: Bool](self, keys: Matrix[HALF], values: Matrix[HALF]) -> Bool:
        """Sums of weights and of weighted values; returns whether all are as exact as can be."""
        var rows = self.queries.rows
        var width = align_up(keys.depth, PANEL)
        for row in range(rows):
            self.sums.unsafe_offset(row * PANEL).unsafe_store(SIMD[F32, PANEL](0))
        for i in range(0, BLOCK_ROWS * width, PANEL):
            self.attended.unsafe_offset(i).unsafe_store(SIMD[F32, PANEL](0))
        var panels = keys.panels()
        self._score_from[tall](keys, 0)
        for panel in range(panels):
            # The tile unit makes the next scores while these become weights.
            if panel + 1 < panels:
                self._score_from[tall](keys, panel + 1)
            self._weigh(panel)
            var end = panel + 1
            if end % CHUNK == 0 or end == panels:
                self._add_values[tall](values, panel // CHUNK * CHUNK, end)
        for row in range(rows):
            if not self._sum(row) < MOST:
                return False
        return True

    @always_inline
    def _scores(self, panel: Int) -> Floats:
        return self.scores.unsafe_offset(panel % 2 * BLOCK_ROWS * PANEL)

    @always_inline
    def _score_from[tall: Bool](self, keys: Matrix[HALF], panel: Int):
        """Scores of a panel of keys, less the tops."""
        var is_last = panel + 1 == keys.panels()
        var start = self.starts.unsafe_offset(BLOCK_ROWS * PANEL if is_last else 0)
        load_block[tall](start.unsafe_bitcast[UInt8](), LINE)
        self._score[tall](keys, panel)

    @always_inline
    def _score[tall: Bool](self, keys: Matrix[HALF], panel: Int):
        """Scores of a panel of keys, on top of what the tiles hold."""
        var depth_bytes = 2 * padded_depth[HALF](keys.depth)
        add_products[HALF, tall](
            self.queries.strip(0), TILE_ROWS * depth_bytes, keys.panel(panel), depth_bytes
        )
        store_block[tall](self._scores(panel).unsafe_bitcast[UInt8](), LINE)

    @always_inline
    def _weigh(self, panel: Int):
        """From the scores of a panel to weights, summed up."""
        var scores = self._scores(panel)
        for start in range(0, self.queries.rows, TILE_ROWS):
            var strip = self.weights.unsafe_offset(
                (start // TILE_ROWS * CHUNK + panel % CHUNK) * STEP_BYTES
            ).unsafe_bitcast[BFloat16]()
            for row in range(start, min(start + TILE_ROWS, self.queries.rows)):
                var place = row * PANEL
                var e = exp2_half(scores.unsafe_offset(place).unsafe_load[width=PANEL]())
                var bits = (bitcast[DType.uint32, PANEL](e) + 0x8000) & 0xFFFF0000
                var sum = self.sums.unsafe_offset(place)
                sum.unsafe_store(sum.unsafe_load[width=PANEL]() + bitcast[F32, PANEL](bits))
                var halves = bitcast[DType.uint16, 2 * PANEL](bits).deinterleave()[1]
                strip.unsafe_offset((row - start) * PANEL).unsafe_store(
                    bitcast[HALF, PANEL](halves)
                )

    @always_inline
    def _add_values[tall: Bool](self, values: Matrix[HALF], first: Int, last: Int):
        """Adds the values of panels of keys `[first, last)`, weighted."""
        var line = 4 * align_up(values.columns, PANEL)
        for column in range(values.panels()):
            var block = self.attended.unsafe_offset(column * PANEL).unsafe_bitcast[UInt8]()
            load_block[tall](block, line)
            add_products[HALF, tall](
                self.weights,
                CHUNK * STEP_BYTES,
                values.panel(column).unsafe_offset(first * PANEL * PANEL * 2),
                (last - first) * TILE_BYTES,
            )
            store_block[tall](block, line)

    @always_inline
    def _sum(self, row: Int) -> Float32:
        return self.sums.unsafe_offset(row * PANEL).unsafe_load[width=PANEL]().reduce_add()
