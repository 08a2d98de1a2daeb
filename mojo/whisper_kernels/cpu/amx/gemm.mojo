"""The product of strips and panels with AMX, block by block.

A block is 32 rows of a panel. While AMX makes one, the vector units finish the one
before, and the next panel, and what is added to the results, are on their way to the cache.
"""

from std.math import ceildiv
from std.sys import size_of

from ...common.simd import F32
from ...common.views import ByteView, FloatView, View
from ..epilogue import Epilogue, finish, finished
from ..panels import HEADER, PANEL, Matrix, padded_depth
from ..prefetch import NEAR, SOON, prefetch
from ..strips import Strips
from ..target import TILE_BYTES, TILE_ROWS
from .tiles import BLOCK_ROWS, SLICE_SIZE, add_products, store_block, zero_block

comptime PREFETCH_BYTES = 2 * SLICE_SIZE
"""How far before its use a panel that is read once is asked for."""


@fieldwise_init
struct Block[storage: DType](ImplicitlyCopyable):
    """A block of results: what AMX makes, and where it goes."""

    var products: FloatView
    """[BLOCK_ROWS, PANEL], of four bytes each."""
    var panel: ByteView
    var first: Int
    """The first of its rows of A."""
    var rows: Int
    """Of A, each of which is one row of strips or two."""
    var column: Int
    var wide: Int
    """Its columns that there are."""

    @always_inline
    def ask_for[output: DType](self, start: Int, end: Int, c: View[output], stride: Int):
        """Has what C holds at rows `[start, end)` brought nearer."""
        for i in range(start, end):
            var row = c.offset((self.first + i) * stride + self.column)
            comptime for lane in range(0, PANEL, 64 // size_of[Scalar[output]]()):
                prefetch[SOON](row.offset(lane))

    @always_inline
    def finish[
        output: DType
    ](
        self,
        start: Int,
        end: Int,
        a: Strips[Self.storage],
        c: View[output],
        stride: Int,
        epilogue: Epilogue,
    ):
        """Rows `[start, end)` through the epilogue to C."""
        var scales = self.panel.bitcast[DType.float32]()
        var column_scale = SIMD[F32, PANEL](1)
        var column_sum = SIMD[F32, PANEL](0)
        comptime if Self.storage == DType.int8:
            column_scale = scales.load[PANEL]()
            column_sum = scales.load[PANEL](PANEL)
        for i in range(start, end):
            var product = self.products.offset(a.planes * i * PANEL)
            var row = self.first + i
            var value = SIMD[F32, PANEL](0)
            comptime if Self.storage == DType.int8:
                for plane in range(a.planes):
                    var line = a.planes * row + plane
                    var zero = SIMD[F32, PANEL](-a.zeros[line])
                    var sums = product.bitcast[DType.int32]().load[PANEL](plane * PANEL)
                    var exact = zero.fma(column_sum, sums.cast[F32]())
                    value = exact.fma(column_scale * a.scales[line], value + a.shifts[line])
            else:
                value = product.load[PANEL]()
            var place = row * stride + self.column
            if self.wide == PANEL:
                c.store(
                    place,
                    finished[Self.storage, output, PANEL](value, self.column, place, epilogue),
                )
            else:
                product.store(value)
                finish[Self.storage, PANEL](product, self.wide, self.column, c, place, epilogue)


def multiply_tiles[
    storage: DType, output: DType
](
    a: Strips[storage],
    b: Matrix[storage],
    first_panel: Int,
    last_panel: Int,
    c: View[output],
    stride: Int,
    epilogue: Epilogue,
):
    """The columns of some panels, for all rows of A; C begins at A's first row."""
    comptime header = HEADER if storage == DType.int8 else 0
    var depth_bytes = padded_depth[storage](b.depth) * size_of[Scalar[storage]]()
    var steps = depth_bytes // TILE_BYTES
    var strip_bytes = TILE_ROWS * depth_bytes
    var blocks = ceildiv(a.strip_rows(), BLOCK_ROWS)
    var most_rows = BLOCK_ROWS // a.planes
    # Where a panel meets several blocks, each asks for a part of the next panel.
    var lines = ceildiv(PANEL, blocks) if blocks > 1 else 0
    var before = Block[storage](a.corner, b.data, 0, 0, 0, 0)
    var turn = 0
    for p in range(first_panel, last_panel):
        var panel = b.panel(p)
        var next = b.panel(p + 1)
        for first in range(0, a.rows, most_rows):
            var block = Block[storage](
                a.corner.offset(turn * BLOCK_ROWS * PANEL),
                panel,
                first,
                min(most_rows, a.rows - first),
                p * PANEL,
                min(PANEL, b.columns - p * PANEL),
            )
            turn = 1 - turn
            var tall = a.planes * block.rows > TILE_ROWS
            var finishing = ceildiv(before.rows, steps)
            var asking = ceildiv(block.rows, steps) if blocks > 1 else 0
            if tall:
                zero_block[True]()
            else:
                zero_block[False]()
            for step in range(steps):
                var left = a.strip(a.planes * first).offset(step * TILE_ROWS * TILE_BYTES)
                var right = panel.offset(header + step * SLICE_SIZE)
                if tall:
                    add_products[storage, True](left, strip_bytes, right, TILE_BYTES)
                else:
                    add_products[storage, False](left, strip_bytes, right, TILE_BYTES)
                if blocks == 1:
                    # Reading sets the pace, and alone AMX asks for too little at once.
                    comptime for ahead in range(PREFETCH_BYTES, PREFETCH_BYTES + SLICE_SIZE, 64):
                        prefetch[NEAR](right.offset(ahead))
                for line in range(step * lines, (step + 1) * lines):
                    prefetch[SOON](next.offset(64 * line))
                var asked = min(block.rows, step * asking)
                block.ask_for(asked, min(block.rows, asked + asking), c, stride)
                var done = min(before.rows, step * finishing)
                before.finish(done, min(before.rows, done + finishing), a, c, stride, epilogue)
            if tall:
                store_block[True](block.products.bitcast[DType.uint8](), 4 * PANEL)
            else:
                store_block[False](block.products.bitcast[DType.uint8](), 4 * PANEL)
            next = next.offset(64 * steps * lines)
            before = block
    before.finish(0, before.rows, a, c, stride, epilogue)
