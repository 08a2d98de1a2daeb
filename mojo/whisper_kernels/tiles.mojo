"""Products by the tile unit of a processor (Intel AMX).

The unit has eight tiles of 16 rows of 64 bytes and adds to one of them the product of two others:
of unsigned with signed bytes in int32, or of bfloat16 in float32. Four of them hold a block of
32 x 32 results while the depth streams past. The right operand's tiles are read from a panel as it
lies, the left operand's from strips (tile_rows.mojo).

Source: Intel Architecture Instruction Set Extensions Programming Reference, chapter 3.
"""

from std.math import ceildiv
from std.memory.alloc import unsafe_alloc
from std.sys import llvm_intrinsic, size_of
from std.sys.intrinsics import PrefetchOptions, prefetch

from .epilogue import Epilogue, finish, finished
from .matrix import F32, HEADER, PANEL, TILE_BYTES, TILE_ROWS, TILES, Matrix, padded_depth
from .strips import Strips
from .tensors import Bytes, Floats

comptime BLOCK_ROWS = 2 * TILE_ROWS
"""Rows of a block of results, which is as wide as a panel."""
comptime SOON = PrefetchOptions().for_read().medium_locality().to_data_cache()


@always_inline
def configure_tiles():
    """Makes this thread's tiles full-sized; a thread does it before it uses them."""
    comptime if TILES:
        var shapes = unsafe_alloc[UInt8](64, alignment=64)
        for i in range(64):
            shapes[unsafe_offset=i] = 0
        shapes[unsafe_offset=0] = 1  # the palette
        for tile in range(8):
            shapes.unsafe_offset(16).unsafe_bitcast[UInt16]()[unsafe_offset=tile] = TILE_BYTES
            shapes[unsafe_offset=48 + tile] = TILE_ROWS
        llvm_intrinsic["llvm.x86.ldtilecfg", NoneType](shapes)
        shapes.unsafe_free()


@always_inline
def release_tiles():
    """Gives the tiles up, so that the system need not save them when the thread sleeps."""
    comptime if TILES:
        llvm_intrinsic["llvm.x86.tilerelease", NoneType]()


@always_inline
def load_tile[tile: Int](source: Bytes, stride: Int):
    """A tile from rows `stride` bytes apart."""
    llvm_intrinsic["llvm.x86.tileloadd64", NoneType](Int8(tile), source, stride)


@always_inline
def store_tile[tile: Int](target: Bytes, stride: Int):
    """A tile to rows `stride` bytes apart."""
    llvm_intrinsic["llvm.x86.tilestored64", NoneType](Int8(tile), target, stride)


@always_inline
def multiply_tile[storage: DType, c: Int, a: Int, b: Int]():
    """Tile `c += a b`."""
    comptime name = (
        "llvm.x86.tdpbusd" if storage == DType.int8 else "llvm.x86.tdpbf16ps"
    )
    llvm_intrinsic[name, NoneType](Int8(c), Int8(a), Int8(b))


@always_inline
def zero_block[tall: Bool]():
    """The results' tiles, empty: 32 rows of two panels' halves, or 16 if not `tall`."""
    comptime for tile in range(4 if tall else 2):
        llvm_intrinsic["llvm.x86.tilezero", NoneType](Int8(tile))


@always_inline
def load_block[tall: Bool](c: Bytes, line: Int):
    """The results' tiles from a block [32, PANEL] of four bytes each, rows `line` bytes apart."""
    load_tile[0](c, line)
    load_tile[1](c.unsafe_offset(TILE_BYTES), line)
    comptime if tall:
        var low = c.unsafe_offset(TILE_ROWS * line)
        load_tile[2](low, line)
        load_tile[3](low.unsafe_offset(TILE_BYTES), line)


@always_inline
def store_block[tall: Bool](c: Bytes, line: Int):
    """The results' tiles to such a block."""
    store_tile[0](c, line)
    store_tile[1](c.unsafe_offset(TILE_BYTES), line)
    comptime if tall:
        var low = c.unsafe_offset(TILE_ROWS * line)
        store_tile[2](low, line)
        store_tile[3](low.unsafe_offset(TILE_BYTES), line)


@always_inline
def add_products[
    storage: DType, tall: Bool
](a: Bytes, strip_bytes: Int, b: Bytes, depth_bytes: Int):
    """Adds `a b` to the results' tiles; the lower half of `a` is `strip_bytes` behind the upper."""
    comptime line = 4 * PANEL
    for step in range(0, depth_bytes, TILE_BYTES):
        var left = a.unsafe_offset(step * TILE_ROWS)
        var right = b.unsafe_offset(step * PANEL)
        load_tile[4](left, TILE_BYTES)
        load_tile[6](right, line)
        load_tile[7](right.unsafe_offset(TILE_BYTES), line)
        multiply_tile[storage, 0, 4, 6]()
        multiply_tile[storage, 1, 4, 7]()
        comptime if tall:
            load_tile[5](left.unsafe_offset(strip_bytes), TILE_BYTES)
            multiply_tile[storage, 2, 5, 6]()
            multiply_tile[storage, 3, 5, 7]()


comptime PARTS = 8
"""Instructions of a product of two tiles with two."""


@always_inline
def add_product_part[
    storage: DType, part: Int
](a: Bytes, strip_bytes: Int, b: Bytes):
    """One instruction of `add_products` for the depth of a tile and tall blocks."""
    comptime line = 4 * PANEL
    comptime if part == 0:
        load_tile[4](a, TILE_BYTES)
    elif part == 1:
        load_tile[6](b, line)
    elif part == 2:
        multiply_tile[storage, 0, 4, 6]()
    elif part == 3:
        load_tile[7](b.unsafe_offset(TILE_BYTES), line)
    elif part == 4:
        multiply_tile[storage, 1, 4, 7]()
    elif part == 5:
        load_tile[5](a.unsafe_offset(strip_bytes), TILE_BYTES)
    elif part == 6:
        multiply_tile[storage, 2, 5, 6]()
    else:
        multiply_tile[storage, 3, 5, 7]()


@fieldwise_init
struct Product[storage: DType](ImplicitlyCopyable):
    """A block of products that have yet to be finished."""

    var values: Floats
    """[BLOCK_ROWS, PANEL], of four bytes each."""
    var panel: Bytes
    var rows: Int
    var first: Int
    """The first of its rows."""
    var column: Int
    var wide: Int
    """Its columns that are there."""

    @always_inline
    def finish(
        self,
        start: Int,
        end: Int,
        a: Strips[Self.storage],
        c: Floats,
        stride: Int,
        epilogue: Epilogue,
    ):
        """Rows `[start, end)` of the block through the epilogue to C."""
        var scales = self.panel.unsafe_bitcast[Float32]()
        var column_scale = SIMD[F32, PANEL](1)
        var column_sum = SIMD[F32, PANEL](0)
        comptime if Self.storage == DType.int8:
            column_scale = scales.unsafe_load[width=PANEL]()
            column_sum = scales.unsafe_offset(PANEL).unsafe_load[width=PANEL]()
        for i in range(start, end):
            var product = self.values.unsafe_offset(i * PANEL)
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
                    finished[Self.storage, PANEL](value, self.column, place, epilogue)
                )
            else:
                product.unsafe_store(value)
                finish[Self.storage, PANEL](product, self.wide, self.column, c, place, epilogue)


def multiply_tiles[
    storage: DType
](
    a: Strips[storage],
    b: Matrix[storage],
    first_panel: Int,
    last_panel: Int,
    c: Floats,
    stride: Int,
    epilogue: Epilogue,
):
    """The columns of some panels, for all rows of A; C begins at A's first row.

    While the tile unit makes a block, the vector units finish the block before.
    """
    comptime header = HEADER if storage == DType.int8 else 0
    var depth_bytes = padded_depth[storage](b.depth) * size_of[Scalar[storage]]()
    var before = Product[storage](a.corner, b.data, 0, 0, 0, 0)
    var turn = 0
    var blocks = ceildiv(a.rows, BLOCK_ROWS)
    var share = ceildiv(PANEL, blocks) if blocks > 1 else 0
    for p in range(first_panel, last_panel):
        var panel = b.panel(p)
        var cells = panel.unsafe_offset(header)
        var column = p * PANEL
        var ahead = b.panel(p + 1)
        for first in range(0, a.rows, BLOCK_ROWS):
            var product = Product[storage](
                a.corner.unsafe_offset(turn * BLOCK_ROWS * PANEL),
                panel,
                min(BLOCK_ROWS, a.rows - first),
                first,
                column,
                min(PANEL, b.columns - column),
            )
            turn = 1 - turn
            var left = a.strip(first)
            var tall = product.rows > TILE_ROWS
            if tall:
                zero_block[True]()
            else:
                zero_block[False]()
            var each = ceildiv(before.rows * TILE_BYTES, depth_bytes)
            var done = 0
            for step in range(0, depth_bytes, TILE_BYTES):
                var tiles = left.unsafe_offset(step * TILE_ROWS)
                if tall:
                    add_products[storage, True](
                        tiles, TILE_ROWS * depth_bytes, cells.unsafe_offset(step * PANEL), TILE_BYTES
                    )
                else:
                    add_products[storage, False](
                        tiles, TILE_ROWS * depth_bytes, cells.unsafe_offset(step * PANEL), TILE_BYTES
                    )
                for line in range(share):
                    prefetch[SOON](ahead.unsafe_offset(64 * line))
                ahead = ahead.unsafe_offset(64 * share)
                var end = min(before.rows, done + each)
                before.finish(done, end, a, c, stride, epilogue)
                done = end
            if tall:
                store_block[True](product.values.unsafe_bitcast[UInt8](), 4 * PANEL)
            else:
                store_block[False](product.values.unsafe_bitcast[UInt8](), 4 * PANEL)
            before = product
    before.finish(0, before.rows, a, c, stride, epilogue)
