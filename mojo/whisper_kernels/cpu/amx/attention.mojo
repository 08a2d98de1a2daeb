"""Attention in bfloat16 by the tile unit, in one pass over keys and values.

The weights of a softmax are `2^(score - top)`, over their sum, whatever `top` is, as long as no
number leaves the range of float32. It need not be the largest score, so that the others need not
be known beforehand: the largest of the first few is taken, and, should a sum show that it is far
below the largest of all, that one instead, once more from the start. So scores are made for one
panel of keys, and weights for some; they stay in the L1 cache.

The tile unit works beside the vector units: between the rows of scores that become weights stand
the instructions that make the next scores, and those that add the values of the weights before.

Source: Dao et al., "FlashAttention", 2022, which corrects the top as it goes.
"""

from std.math import align_up, sqrt
from std.memory.alloc import unsafe_alloc
from std.sys import llvm_intrinsic

from ...common.exp import HALF_ONE, HALF_UNIT, LOG2_OF_E, exp2_half
from ...common.extremes import larger
from ...common.simd import F32, LANES
from ..panels import PANEL, TILE_BYTES, TILE_ROWS, Matrix, padded_depth
from ...common.views import Bytes, Floats
from .tiles import (
    BLOCK_ROWS,
    TALL_PARTS,
    add_product_part,
    add_products,
    load_block,
    store_block,
    zero_block,
)

comptime HALF = DType.bfloat16
comptime LINE = 4 * PANEL
"""Bytes of a row of scores."""
comptime STEP_BYTES = TILE_ROWS * TILE_BYTES
"""Of the weights of 16 queries for a panel of keys: a tile."""
comptime SLICE_BYTES = PANEL * TILE_BYTES
"""Of a panel, as deep as a tile: the values of a panel of keys."""
comptime CHUNK = 2
"""Panels of keys whose weights are multiplied with values at once."""
comptime CHUNK_BYTES = 2 * CHUNK * STEP_BYTES
comptime FIRST = 2
"""Panels of keys that a guess of the top is made from."""
comptime MOST = Float32(1 << 60)
"""A sum of weights above this may have lost something."""


def query_scale(head_size: Int) -> Float32:
    """What queries are multiplied by, so that scores are exponents of 2 in the units of
    `exp2_half`."""
    return HALF_UNIT * LOG2_OF_E / sqrt(Float32(head_size))


struct TileAttention:
    """A thread's room for a block of queries."""

    var queries: Bytes
    """Two strips of the queries at hand."""
    var count: Int
    """Of these queries."""
    var starts: Floats
    """[2, BLOCK_ROWS, PANEL]: `HALF_ONE - top` of each row, which scores are added to; then the
    same for the last panel, with what is no key left without weight."""
    var scores: Floats
    """[2, BLOCK_ROWS, PANEL], of two panels in turns."""
    var weights: Bytes
    """Two strips of `CHUNK` tiles, of two chunks in turns."""
    var sums: Floats
    """[BLOCK_ROWS, LANES], of weights, two keys of a panel a lane."""
    var attended: Floats
    """[BLOCK_ROWS, head size], to whole panels."""

    def __init__(out self, head_size: Int):
        comptime block = BLOCK_ROWS * PANEL
        self.starts = unsafe_alloc[Float32](2 * block, alignment=64)
        self.scores = unsafe_alloc[Float32](2 * block, alignment=64)
        self.weights = unsafe_alloc[UInt8](2 * CHUNK_BYTES, alignment=64)
        self.queries = self.weights  # for want of any
        self.count = 0
        self.sums = unsafe_alloc[Float32](BLOCK_ROWS * LANES, alignment=64)
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
        queries: Bytes,
        count: Int,
        keys: Matrix[HALF],
        values: Matrix[HALF],
        output: Floats,
        stride: Int,
    ):
        """Attention of `count` queries, at most `BLOCK_ROWS`, which are times `query_scale`;
        output has one row each."""
        self.queries = queries
        self.count = count
        self._find_tops(keys, min(FIRST, keys.panels()))
        if not self._pass_over(keys, values):
            self._find_tops(keys, keys.panels())
            _ = self._pass_over(keys, values)
        for row in range(count):
            var factor = 1 / self._sum(row)
            var source = self.attended.unsafe_offset(row * align_up(keys.depth, PANEL))
            var target = output.unsafe_offset(row * stride)
            var whole = keys.depth // LANES * LANES
            for k in range(0, whole, LANES):
                target.unsafe_offset(k).unsafe_store(
                    factor * source.unsafe_offset(k).unsafe_load[width=LANES]()
                )
            for k in range(whole, keys.depth):
                target[unsafe_offset=k] = factor * source[unsafe_offset=k]

    def _find_tops(self, keys: Matrix[HALF], panels: Int):
        """Makes `starts` from the largest scores of the first panels."""
        comptime V = SIMD[F32, LANES]
        var tops = self.sums
        for row in range(self.count):
            tops.unsafe_offset(row * LANES).unsafe_store(V(Float32.MIN_FINITE))
        for panel in range(panels):
            zero_block[True]()
            self._score(keys, panel, 0)
            var count = min(PANEL, keys.columns - panel * PANEL)
            for row in range(self.count):
                var x = self._scores(panel).unsafe_offset(row * PANEL)
                var top = tops.unsafe_offset(row * LANES)
                for k in range(count, PANEL):
                    x[unsafe_offset=k] = Float32.MIN_FINITE
                var low = x.unsafe_load[width=LANES]()
                var high = x.unsafe_offset(LANES).unsafe_load[width=LANES]()
                top.unsafe_store(
                    larger(larger(low, high), top.unsafe_load[width=LANES]())
                )
        var last_count = keys.columns - (keys.panels() - 1) * PANEL
        for row in range(self.count):
            var start = self.starts.unsafe_offset(row * PANEL)
            var top = tops.unsafe_offset(row * LANES).unsafe_load[width=LANES]().reduce_max()
            start.unsafe_store(SIMD[F32, PANEL](HALF_ONE - top))
            var last = start.unsafe_offset(BLOCK_ROWS * PANEL)
            last.unsafe_store(SIMD[F32, PANEL](HALF_ONE - top))
            for k in range(last_count, PANEL):
                last[unsafe_offset=k] = Float32.MIN_FINITE

    def _pass_over(self, keys: Matrix[HALF], values: Matrix[HALF]) -> Bool:
        """Sums of weights and of weighted values; returns whether all are as exact as can be."""
        for i in range(0, BLOCK_ROWS * LANES, LANES):
            self.sums.unsafe_offset(i).unsafe_store(SIMD[F32, LANES](0))
        for i in range(0, BLOCK_ROWS * align_up(keys.depth, PANEL), LANES):
            self.attended.unsafe_offset(i).unsafe_store(SIMD[F32, LANES](0))
        var panels = keys.panels()
        self._load_starts(keys, 0)
        self._score(keys, 0, 0)
        for panel in range(panels):
            self._weigh(panel, keys, values)
        var last = (panels - 1) // CHUNK * CHUNK
        if last > 0:
            # If the last chunk has fewer panels, some columns of the one before are left.
            for place in range(panels - last, CHUNK):
                self._add_values(values, last - CHUNK, last, place)
        for place in range(CHUNK):
            self._add_values(values, last, panels, place)
        for row in range(self.count):
            if not self._sum(row) < MOST:
                return False
        return True

    def _weigh(self, panel: Int, keys: Matrix[HALF], values: Matrix[HALF]):
        """From the scores of a panel to weights, summed up. Meanwhile the tile unit makes the
        scores of the next panel, then adds some columns of the values of the chunk before."""
        var next = panel + 1
        var strip_bytes = TILE_ROWS * 2 * padded_depth[HALF](keys.depth)
        var steps = 0
        if next < keys.panels():
            steps = min(2, strip_bytes // STEP_BYTES)
            self._load_starts(keys, next)
        self._weigh_half(panel, 0, steps, self.queries, keys.panel(next), strip_bytes)
        if steps > 0:
            self._score(keys, next, steps)
        var before = panel // CHUNK * CHUNK - CHUNK
        var column = panel % CHUNK
        var busy = before >= 0 and column < values.panels()
        var right = values.panel(column).unsafe_offset(before * SLICE_BYTES)
        var line = 4 * align_up(values.columns, PANEL)
        var block = self.attended.unsafe_offset(column * PANEL).unsafe_bitcast[UInt8]()
        if busy:
            load_block(block, line)
        self._weigh_half(
            panel, 1, CHUNK if busy else 0, self._chunk(before), right, CHUNK * STEP_BYTES
        )
        if busy:
            store_block[True](block, line)
            self._add_values(values, before, before + CHUNK, column + CHUNK)

    @always_inline
    def _weigh_half(
        self, panel: Int, half: Int, steps: Int, left: Bytes, right: Bytes, strip_bytes: Int
    ):
        """Half of the rows; among them, so many steps of a product, at most two."""
        for step in range(2):
            var a = left.unsafe_offset(step * STEP_BYTES)
            var b = right.unsafe_offset(step * SLICE_BYTES)
            if step < steps:
                self._weigh_rows[True](panel, 2 * half + step, a, b, strip_bytes)
            else:
                self._weigh_rows[False](panel, 2 * half + step, a, b, strip_bytes)

    def _weigh_rows[
        busy: Bool
    ](self, panel: Int, quarter: Int, left: Bytes, right: Bytes, strip_bytes: Int):
        """A quarter of the rows; among them, if `busy`, a product of four tiles."""
        comptime count = BLOCK_ROWS // 4
        var first = quarter * count
        var strip = first // TILE_ROWS
        var scores = self._scores(panel).unsafe_offset(first * PANEL)
        var sums = self.sums.unsafe_offset(first * LANES)
        var weights = self._chunk(panel).unsafe_offset(
            (strip * CHUNK + panel % CHUNK) * STEP_BYTES + first % TILE_ROWS * TILE_BYTES
        ).unsafe_bitcast[BFloat16]()
        comptime for row in range(count):
            comptime if busy and row < TALL_PARTS:
                add_product_part[HALF, row](left, strip_bytes, right)
            var halves = exp2_half(scores.unsafe_offset(row * PANEL).unsafe_load[width=PANEL]())
            var sum = sums.unsafe_offset(row * LANES)
            sum.unsafe_store(add_all(sum.unsafe_load[width=LANES](), halves))
            weights.unsafe_offset(row * PANEL).unsafe_store(halves)

    @always_inline
    def _scores(self, panel: Int) -> Floats:
        return self.scores.unsafe_offset(panel % 2 * BLOCK_ROWS * PANEL)

    @always_inline
    def _chunk(self, panel: Int) -> Bytes:
        """The weights of the chunk that a panel of keys belongs to."""
        return self.weights.unsafe_offset(panel // CHUNK % 2 * CHUNK_BYTES)

    @always_inline
    def _load_starts(self, keys: Matrix[HALF], panel: Int):
        """What the scores of a panel of keys are added to."""
        var is_last = panel + 1 == keys.panels()
        var start = self.starts.unsafe_offset(BLOCK_ROWS * PANEL if is_last else 0)
        load_block(start.unsafe_bitcast[UInt8](), LINE)

    @always_inline
    def _score(self, keys: Matrix[HALF], panel: Int, done: Int):
        """Scores of a panel of keys, on top of what the tiles hold; `done` steps of their depth
        were added before."""
        var depth_bytes = 2 * padded_depth[HALF](keys.depth)
        add_products[HALF, True](
            self.queries.unsafe_offset(done * STEP_BYTES),
            TILE_ROWS * depth_bytes,
            keys.panel(panel).unsafe_offset(done * SLICE_BYTES),
            depth_bytes - done * TILE_BYTES,
        )
        store_block[True](self._scores(panel).unsafe_bitcast[UInt8](), LINE)

    def _add_values(self, values: Matrix[HALF], first: Int, last: Int, place: Int):
        """Adds the values of panels of keys `[first, last)` of one chunk, weighted: every
        `CHUNK`th of their panels from `place` on."""
        var line = 4 * align_up(values.columns, PANEL)
        for column in range(place, values.panels(), CHUNK):
            var block = self.attended.unsafe_offset(column * PANEL).unsafe_bitcast[UInt8]()
            load_block(block, line)
            add_products[HALF, True](
                self._chunk(first),
                CHUNK * STEP_BYTES,
                values.panel(column).unsafe_offset(first * SLICE_BYTES),
                (last - first) * TILE_BYTES,
            )
            store_block[True](block, line)

    @always_inline
    def _sum(self, row: Int) -> Float32:
        return self.sums.unsafe_offset(row * LANES).unsafe_load[width=LANES]().reduce_add()


@always_inline
def add_all(sums: SIMD[F32, LANES], x: SIMD[HALF, PANEL]) -> SIMD[F32, LANES]:
    """Adds two neighbours of `x` to each lane."""
    return llvm_intrinsic["llvm.x86.avx512bf16.dpbf16ps.512", SIMD[F32, LANES]](
        sums, x, SIMD[HALF, PANEL](1)
    )
