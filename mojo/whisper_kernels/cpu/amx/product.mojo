"""The product of strips and panels by the tile unit, block by block.

A block is 32 rows of a panel. While the tile unit makes one, the vector units finish the one
before, and the next panel, and what is added to the results, are on their way to the cache.
"""

from std.math import ceildiv
from std.sys import size_of
from std.sys.intrinsics import prefetch

from ..epilogue import Epilogue, finish, finished
from ...common.simd import F32
from ..panels import HEADER, PANEL, TILE_BYTES, TILE_ROWS, Matrix, padded_depth
from ..prefetch import NEAR, SOON
from ..strips import Strips
from ...common.views import Bytes, Floats, Numbers
from .tiles import BLOCK_ROWS, add_products, store_block, zero_block

comptime STEP_BYTES = PANEL * TILE_BYTES
"""Of a panel, as deep as a tile."""
comptime AHEAD = 2 * STEP_BYTES
"""How far before its use a panel that is read once is asked for."""


@fieldwise_init
struct Block[storage: DType](ImplicitlyCopyable):
    """A block of results: what the tile unit makes, and where it goes."""

    var products: Floats
    """[BLOCK_ROWS, PANEL], of four bytes each."""
    var panel: Bytes
    var first: Int
    """The first of its rows."""
    var rows: Int
    var column: Int
    var wide: Int
    """Its columns that there are."""

    @always_inline
    def ask_for[
        output: DType
    ](self, start: Int, end: Int, c: Numbers[output], stride: Int):
        """Has what C holds at rows `[start, end)` brought nearer."""
        for i in range(start, end):
            var row = c.unsafe_offset((self.first + i) * stride + self.column)
            comptime for lane in range(0, PANEL, 64 // size_of[Scalar[output]]()):
                prefetch[SOON](row.unsafe_offset(lane))

    @always_inline
    def finish[
        output: DType
    ](
        self,
        start: Int,
        end: Int,
        a: Strips[Self.storage],
        c: Numbers[output],
        stride: Int,
        epilogue: Epilogue,
    ):
        """Rows `[start, end)` through the epilogue to C."""
        var scales = self.panel.unsafe_bitcast[Float32]()
        var column_scale = SIMD[F32, PANEL](1)
        var column_sum = SIMD[F32, PANEL](0)
        comptime if Self.storage == DType.int8:
            column_scale = scales.unsafe_load[width=PANEL]()
            column_sum = scales.unsafe_offset(PANEL).unsafe_load[width=PANEL]()
        for i in range(start, end):
            var product = self.products.unsafe_offset(i * PANEL)
            var row = self.first + i
            var value: SIMD[F32, PANEL]
            comptime if Self.storage == DType.int8:
                var zero = SIMD[F32, PANEL](-a.zeros[unsafe_offset=row])
                value = product.unsafe_bitcast[Int32]().unsafe_load[width=PANEL]().cast[F32]()
                value = zero.fma(column_sum, value)
                value *= column_scale * a.scales[unsafe_offset=row]
            else:
                value = product.unsafe_load[width=PANEL]()
            var place = row * stride + self.column
            if self.wide == PANEL:
                c.unsafe_offset(place).unsafe_store(
                    finished[Self.storage, output, PANEL](value, self.column, place, epilogue)
                )
            else:
                product.unsafe_store(value)
                finish[Self.storage, PANEL](product, self.wide, self.column, c, place, epilogue)


def multiply_tiles[
    storage: DType, output: DType
](
    a: Strips[storage],
    b: Matrix[storage],
    first_panel: Int,
    last_panel: Int,
    c: Numbers[output],
    stride: Int,
    epilogue: Epilogue,
):
    """The columns of some panels, for all rows of A; C begins at A's first row."""
    comptime header = HEADER if storage == DType.int8 else 0
    var depth_bytes = padded_depth[storage](b.depth) * size_of[Scalar[storage]]()
    var steps = depth_bytes // TILE_BYTES
    var strip_bytes = TILE_ROWS * depth_bytes
    var blocks = ceildiv(a.rows, BLOCK_ROWS)
    # Where a panel meets several blocks, each asks for a part of the next panel.
    var lines = ceildiv(PANEL, blocks) if blocks > 1 else 0
    var before = Block[storage](a.corner, b.data, 0, 0, 0, 0)
    var turn = 0
    for p in range(first_panel, last_panel):
        var panel = b.panel(p)
        var next = b.panel(p + 1)
        for first in range(0, a.rows, BLOCK_ROWS):
            var block = Block[storage](
                a.corner.unsafe_offset(turn * BLOCK_ROWS * PANEL),
                panel,
                first,
                min(BLOCK_ROWS, a.rows - first),
                p * PANEL,
                min(PANEL, b.columns - p * PANEL),
            )
            turn = 1 - turn
            var tall = block.rows > TILE_ROWS
            var finishing = ceildiv(before.rows, steps)
            var asking = ceildiv(block.rows, steps) if blocks > 1 else 0
            if tall:
                zero_block[True]()
            else:
                zero_block[False]()
            for step in range(steps):
                var left = a.strip(first).unsafe_offset(step * TILE_ROWS * TILE_BYTES)
                var right = panel.unsafe_offset(header + step * STEP_BYTES)
                if tall:
                    add_products[storage, True](left, strip_bytes, right, TILE_BYTES)
                else:
                    add_products[storage, False](left, strip_bytes, right, TILE_BYTES)
                if blocks == 1:
                    # Reading sets the pace, and alone the tile unit asks for too little at once.
                    comptime for ahead in range(AHEAD, AHEAD + STEP_BYTES, 64):
                        prefetch[NEAR](right.unsafe_offset(ahead))
                for line in range(step * lines, (step + 1) * lines):
                    prefetch[SOON](next.unsafe_offset(64 * line))
                var asked = min(block.rows, step * asking)
                block.ask_for(asked, min(block.rows, asked + asking), c, stride)
                var done = min(before.rows, step * finishing)
                before.finish(done, min(before.rows, done + finishing), a, c, stride, epilogue)
            if tall:
                store_block[True](block.products.unsafe_bitcast[UInt8](), 4 * PANEL)
            else:
                store_block[False](block.products.unsafe_bitcast[UInt8](), 4 * PANEL)
            next = next.unsafe_offset(64 * steps * lines)
            before = block
    before.finish(0, before.rows, a, c, stride, epilogue)
