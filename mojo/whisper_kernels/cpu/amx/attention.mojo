"""Attention in bfloat16 by AMX, in one pass over keys and values.

The weights of a softmax are `2^(score - top)`, over their sum, whatever `top` is, as long as no
number leaves the range of float32. It need not be the largest score, so that the others need not
be known beforehand: the largest of the first few is taken, and, should a sum show that it is far
below the largest of all, that one instead, once more from the start. So scores are made for one
panel of keys, and weights for some; they stay in the L1 cache.

AMX works beside the vector units: between the rows of scores that become weights stand
the instructions that make the next scores, and those that add the values of the weights before.

Source: Dao et al., "FlashAttention", 2022, which corrects the top as it goes.
"""

from std.math import align_up, sqrt
from std.sys import llvm_intrinsic

from ...common.exp import LOG2_OF_E
from ...common.min_max import larger
from ...common.simd import BF16, F32, LANES
from ...common.views import ByteView, FloatView
from ..panels import PANEL, Matrix, padded_depth
from ..target import TILE_BYTES, TILE_ROWS
from .exp2_bf16 import HALF_ONE, HALF_UNIT, exp2_half
from .tiles import (
    BLOCK_ROWS,
    SLICE_SIZE,
    TALL_INSTRUCTIONS,
    TILE_SIZE,
    add_product_instruction,
    add_products,
    load_block,
    store_block,
    zero_block,
)

comptime SCORE_LINE = 4 * PANEL
"""Bytes of a row of scores."""
comptime CHUNK_PANELS = 2
"""Panels of keys whose weights are multiplied with values at once."""
comptime CHUNK_BYTES = 2 * CHUNK_PANELS * TILE_SIZE
comptime GUESS_PANELS = 2
"""Panels of keys that a guess of the top is made from."""
comptime MOST_WEIGHT = Float32(1 << 60)
"""A sum of weights above this may have lost something."""


def query_scale(head_size: Int) -> Float32:
    """What queries are multiplied by, so that scores are exponents of 2 in the units of
    `exp2_half`."""
    return HALF_UNIT * LOG2_OF_E / sqrt(Float32(head_size))


struct TileAttention:
    """A thread's room for a block of queries."""

    var queries: ByteView
    """Two strips of the queries at hand."""
    var count: Int
    """Of these queries."""
    var starts: FloatView
    """[2, BLOCK_ROWS, PANEL]: `HALF_ONE - top` of each row, which scores are added to; then the
    same for the last panel, with what is no key left without weight."""
    var scores: FloatView
    """[2, BLOCK_ROWS, PANEL], of two panels in turns."""
    var weights: ByteView
    """Two strips of `CHUNK_PANELS` tiles, of two chunks in turns."""
    var sums: FloatView
    """[BLOCK_ROWS, LANES], of weights, two keys of a panel a lane."""
    var attended: FloatView
    """[BLOCK_ROWS, head size], to whole panels."""

    def __init__(out self, head_size: Int):
        comptime block = BLOCK_ROWS * PANEL
        self.starts = FloatView.allocate(2 * block)
        self.scores = FloatView.allocate(2 * block)
        self.weights = ByteView.allocate(2 * CHUNK_BYTES)
        self.queries = self.weights  # for want of any
        self.count = 0
        self.sums = FloatView.allocate(BLOCK_ROWS * LANES)
        self.attended = FloatView.allocate(BLOCK_ROWS * align_up(head_size, PANEL))

    def __deinit__(deinit self):
        self.starts.free()
        self.scores.free()
        self.weights.free()
        self.sums.free()
        self.attended.free()

    def attend(
        mut self,
        queries: ByteView,
        count: Int,
        keys: Matrix[BF16],
        values: Matrix[BF16],
        output: FloatView,
        stride: Int,
    ):
        """Attention of `count` queries, at most `BLOCK_ROWS`, which are times `query_scale`;
        output has one row each."""
        self.queries = queries
        self.count = count
        self._find_tops(keys, min(GUESS_PANELS, keys.panels()))
        if not self._pass_over(keys, values):
            self._find_tops(keys, keys.panels())
            _ = self._pass_over(keys, values)
        for row in range(count):
            var factor = 1 / self._sum(row)
            var source = self.attended.offset(row * align_up(keys.depth, PANEL))
            var target = output.offset(row * stride)
            var whole = keys.depth // LANES * LANES
            for k in range(0, whole, LANES):
                target.store(k, factor * source.load[LANES](k))
            for k in range(whole, keys.depth):
                target[k] = factor * source[k]

    def _find_tops(self, keys: Matrix[BF16], panels: Int):
        """Makes `starts` from the largest scores of the first panels."""
        comptime V = SIMD[F32, LANES]
        var tops = self.sums
        for row in range(self.count):
            tops.store(row * LANES, V(Float32.MIN_FINITE))
        for panel in range(panels):
            zero_block[True]()
            self._score(keys, panel, 0)
            var count = min(PANEL, keys.columns - panel * PANEL)
            for row in range(self.count):
                var x = self._scores(panel).offset(row * PANEL)
                var top = tops.offset(row * LANES)
                for k in range(count, PANEL):
                    x[k] = Float32.MIN_FINITE
                var low = x.load[LANES]()
                var high = x.load[LANES](LANES)
                top.store(larger(larger(low, high), top.load[LANES]()))
        var last_count = keys.columns - (keys.panels() - 1) * PANEL
        for row in range(self.count):
            var start = self.starts.offset(row * PANEL)
            var top = tops.load[LANES](row * LANES).reduce_max()
            start.store(SIMD[F32, PANEL](HALF_ONE - top))
            var last = start.offset(BLOCK_ROWS * PANEL)
            last.store(SIMD[F32, PANEL](HALF_ONE - top))
            for k in range(last_count, PANEL):
                last[k] = Float32.MIN_FINITE

    def _pass_over(self, keys: Matrix[BF16], values: Matrix[BF16]) -> Bool:
        """Sums of weights and of weighted values; returns whether all are as exact as can be."""
        for i in range(0, BLOCK_ROWS * LANES, LANES):
            self.sums.store(i, SIMD[F32, LANES](0))
        for i in range(0, BLOCK_ROWS * align_up(keys.depth, PANEL), LANES):
            self.attended.store(i, SIMD[F32, LANES](0))
        var panels = keys.panels()
        self._load_starts(keys, 0)
        self._score(keys, 0, 0)
        for panel in range(panels):
            self._weigh(panel, keys, values)
        var last = (panels - 1) // CHUNK_PANELS * CHUNK_PANELS
        if last > 0:
            # If the last chunk has fewer panels, some columns of the one before are left.
            for place in range(panels - last, CHUNK_PANELS):
                self._add_values(values, last - CHUNK_PANELS, last, place)
        for place in range(CHUNK_PANELS):
            self._add_values(values, last, panels, place)
        for row in range(self.count):
            if not self._sum(row) < MOST_WEIGHT:
                return False
        return True

    def _weigh(self, panel: Int, keys: Matrix[BF16], values: Matrix[BF16]):
        """From the scores of a panel to weights, summed up. Meanwhile AMX makes the
        scores of the next panel, then adds some columns of the values of the chunk before."""
        var next = panel + 1
        var strip_bytes = TILE_ROWS * 2 * padded_depth[BF16](keys.depth)
        var steps = 0
        if next < keys.panels():
            steps = min(2, strip_bytes // TILE_SIZE)
            self._load_starts(keys, next)
        self._weigh_half(panel, 0, steps, self.queries, keys.panel(next), strip_bytes)
        if steps > 0:
            self._score(keys, next, steps)
        var before = panel // CHUNK_PANELS * CHUNK_PANELS - CHUNK_PANELS
        var column = panel % CHUNK_PANELS
        var busy = before >= 0 and column < values.panels()
        var right = values.panel(column).offset(before * SLICE_SIZE)
        var line = 4 * align_up(values.columns, PANEL)
        var block = self.attended.offset(column * PANEL).bitcast[DType.uint8]()
        if busy:
            load_block(block, line)
        self._weigh_half(
            panel,
            1,
            CHUNK_PANELS if busy else 0,
            self._chunk(before),
            right,
            CHUNK_PANELS * TILE_SIZE,
        )
        if busy:
            store_block[True](block, line)
            self._add_values(values, before, before + CHUNK_PANELS, column + CHUNK_PANELS)

    @always_inline
    def _weigh_half(
        self, panel: Int, half: Int, steps: Int, left: ByteView, right: ByteView, strip_bytes: Int
    ):
        """Half of the rows; among them, so many steps of a product, at most two."""
        for step in range(2):
            var a = left.offset(step * TILE_SIZE)
            var b = right.offset(step * SLICE_SIZE)
            if step < steps:
                self._weigh_rows[True](panel, 2 * half + step, a, b, strip_bytes)
            else:
                self._weigh_rows[False](panel, 2 * half + step, a, b, strip_bytes)

    def _weigh_rows[
        busy: Bool
    ](self, panel: Int, quarter: Int, left: ByteView, right: ByteView, strip_bytes: Int):
        """A quarter of the rows; among them, if `busy`, a product of four tiles."""
        comptime count = BLOCK_ROWS // 4
        var first = quarter * count
        var strip = first // TILE_ROWS
        var scores = self._scores(panel).offset(first * PANEL)
        var sums = self.sums.offset(first * LANES)
        var weights = (
            self._chunk(panel)
            .offset(
                (strip * CHUNK_PANELS + panel % CHUNK_PANELS) * TILE_SIZE
                + first % TILE_ROWS * TILE_BYTES
            )
            .bitcast[DType.bfloat16]()
        )
        comptime for row in range(count):
            comptime if busy and row < TALL_INSTRUCTIONS:
                add_product_instruction[BF16, row](left, strip_bytes, right)
            var halves = exp2_half(scores.load[PANEL](row * PANEL))
            var sum = sums.offset(row * LANES)
            sum.store(add_all(sum.load[LANES](), halves))
            weights.store(row * PANEL, halves)

    @always_inline
    def _scores(self, panel: Int) -> FloatView:
        return self.scores.offset(panel % 2 * BLOCK_ROWS * PANEL)

    @always_inline
    def _chunk(self, panel: Int) -> ByteView:
        """The weights of the chunk that a panel of keys belongs to."""
        return self.weights.offset(panel // CHUNK_PANELS % 2 * CHUNK_BYTES)

    @always_inline
    def _load_starts(self, keys: Matrix[BF16], panel: Int):
        """What the scores of a panel of keys are added to."""
        var is_last = panel + 1 == keys.panels()
        var start = self.starts.offset(BLOCK_ROWS * PANEL if is_last else 0)
        load_block(start.bitcast[DType.uint8](), SCORE_LINE)

    @always_inline
    def _score(self, keys: Matrix[BF16], panel: Int, done: Int):
        """Scores of a panel of keys, on top of what the tiles hold; `done` steps of their depth
        were added before."""
        var depth_bytes = 2 * padded_depth[BF16](keys.depth)
        add_products[BF16, True](
            self.queries.offset(done * TILE_SIZE),
            TILE_ROWS * depth_bytes,
            keys.panel(panel).offset(done * SLICE_SIZE),
            depth_bytes - done * TILE_BYTES,
        )
        store_block[True](self._scores(panel).bitcast[DType.uint8](), SCORE_LINE)

    def _add_values(self, values: Matrix[BF16], first: Int, last: Int, place: Int):
        """Adds the values of panels of keys `[first, last)` of one chunk, weighted: every
        `CHUNK_PANELS`th of their panels from `place` on."""
        var line = 4 * align_up(values.columns, PANEL)
        for column in range(place, values.panels(), CHUNK_PANELS):
            var block = self.attended.offset(column * PANEL).bitcast[DType.uint8]()
            load_block(block, line)
            add_products[BF16, True](
                self._chunk(first),
                CHUNK_PANELS * TILE_SIZE,
                values.panel(column).offset(first * SLICE_SIZE),
                (last - first) * TILE_BYTES,
            )
            store_block[True](block, line)

    @always_inline
    def _sum(self, row: Int) -> Float32:
        return self.sums.load[LANES](row * LANES).reduce_add()


@always_inline
def add_all(sums: SIMD[F32, LANES], x: SIMD[BF16, PANEL]) -> SIMD[F32, LANES]:
    """Adds two neighbours of `x` to each lane."""
    return llvm_intrinsic["llvm.x86.avx512bf16.dpbf16ps.512", SIMD[F32, LANES]](
        sums, x, SIMD[BF16, PANEL](1)
    )
