"""Products by the tile unit of a processor (Intel AMX).

The unit has eight tiles of 16 rows of 64 bytes and adds to one of them the product of two others:
of unsigned with signed bytes in int32, or of bfloat16 in float32. Four of them hold a block of
32 x 32 results while the depth streams past. The right operand's tiles are read from a panel as it
lies, the left operand's from strips (tile_rows.mojo).

Source: Intel Architecture Instruction Set Extensions Programming Reference, chapter 3.
"""

from std.memory.alloc import unsafe_alloc
from std.sys import llvm_intrinsic, size_of

from .epilogue import Epilogue, finish, finished
from .matrix import F32, HEADER, PANEL, TILE_BYTES, TILE_ROWS, TILES, Matrix, padded_depth
from .strips import Strips
from .tensors import Bytes, Floats

comptime BLOCK_ROWS = 2 * TILE_ROWS
"""Rows of a block of results, which is as wide as a panel."""


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


@always_inline
def multiply_block[
    storage: DType, tall: Bool
](a: Bytes, b: Bytes, depth_bytes: Int, c: Bytes, c_line: Int):
    """`c [32, PANEL] = a b` of four bytes a result, or 16 rows if not `tall`; C's rows are
    `c_line` bytes apart."""
    zero_block[tall]()
    add_products[storage, tall](a, TILE_ROWS * depth_bytes, b, depth_bytes)
    store_block[tall](c, c_line)


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
    """The columns of some panels, for all rows of A; C begins at A's first row."""
    comptime header = HEADER if storage == DType.int8 else 0
    var depth_bytes = padded_depth[storage](b.depth) * size_of[Scalar[storage]]()
    for p in range(first_panel, last_panel):
        var panel = b.panel(p)
        var column = p * PANEL
        var wide = min(PANEL, b.columns - column)
        for first in range(0, a.rows, BLOCK_ROWS):
            var rows = min(BLOCK_ROWS, a.rows - first)
            var block = a.corner.unsafe_bitcast[UInt8]()
            var line = 4 * PANEL
            # What is a result as it is and fills its tiles goes where it belongs at once.
            var direct = storage != DType.int8 and epilogue.empty() and wide == PANEL
            direct = direct and rows % TILE_ROWS == 0
            if direct:
                block = c.unsafe_offset(first * stride + column).unsafe_bitcast[UInt8]()
                line = 4 * stride
            var cells = panel.unsafe_offset(header)
            if rows > TILE_ROWS:
                multiply_block[storage, True](a.strip(first), cells, depth_bytes, block, line)
            else:
                multiply_block[storage, False](a.strip(first), cells, depth_bytes, block, line)
            if direct:
                continue
            var scales = panel.unsafe_bitcast[Float32]()
            var column_scale = SIMD[F32, PANEL](1)
            var column_sum = SIMD[F32, PANEL](0)
            comptime if storage == DType.int8:
                column_scale = scales.unsafe_load[width=PANEL]()
                column_sum = scales.unsafe_offset(PANEL).unsafe_load[width=PANEL]()
            for i in range(rows):
                var product = a.corner.unsafe_offset(i * PANEL)
                var value: SIMD[F32, PANEL]
                comptime if storage == DType.int8:
                    var zero = SIMD[F32, PANEL](-a.zeros[unsafe_offset=first + i])
                    value = product.unsafe_bitcast[Int32]().unsafe_load[width=PANEL]().cast[F32]()
                    value = zero.fma(column_sum, value)
                    value *= column_scale * a.scales[unsafe_offset=first + i]
                else:
                    value = product.unsafe_load[width=PANEL]()
                var place = (first + i) * stride + column
                if wide == PANEL:
                    c.unsafe_offset(place).unsafe_store(
                        finished[storage, PANEL](value, column, place, epilogue)
                    )
                else:
                    product.unsafe_store(value)
                    finish[storage, PANEL](product, wide, column, c, place, epilogue)
