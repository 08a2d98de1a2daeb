"""Products by Intel AMX, a unit that multiplies tiles.

The unit has eight tiles of 16 rows of 64 bytes and adds to one of them the product of two others:
of unsigned with signed bytes in int32, or of bfloat16 in float32. Four of them hold a block of
32 x 32 results while the depth streams past. The right operand's tiles are read from a panel as it
lies, the left operand's from strips (amx/strips.mojo).

Source: Intel Architecture Instruction Set Extensions Programming Reference, chapter 3.
"""

from std.sys import llvm_intrinsic

from ...common.views import ByteView
from ..panels import PANEL
from ..target import TILES, TILE_BYTES, TILE_ROWS

comptime BLOCK_ROWS = 2 * TILE_ROWS
"""Rows of a block of results, which is as wide as a panel."""
comptime TILE_SIZE = TILE_ROWS * TILE_BYTES
"""Bytes of a tile."""
comptime SLICE_SIZE = PANEL * TILE_BYTES
"""Bytes of a panel, as deep as a tile."""
comptime FLAT_INSTRUCTIONS = 5
"""Instructions that add the products of a tile of A to the results."""
comptime TALL_INSTRUCTIONS = 8
"""With those of the tile below."""


@always_inline
def configure_tiles():
    """Makes this thread's tiles full-sized; a thread does it before it uses them."""
    comptime if TILES:
        var shapes = ByteView.allocate(64)
        for i in range(64):
            shapes[i] = 0
        shapes[0] = 1  # the palette
        for tile in range(8):
            shapes.offset(16).bitcast[DType.uint16]()[tile] = TILE_BYTES
            shapes[48 + tile] = TILE_ROWS
        llvm_intrinsic["llvm.x86.ldtilecfg", NoneType](shapes.data)
        shapes.free()


@always_inline
def release_tiles():
    """Gives the tiles up, so that the system need not save them when the thread sleeps."""
    comptime if TILES:
        llvm_intrinsic["llvm.x86.tilerelease", NoneType]()


@always_inline
def load_tile[tile: Int](source: ByteView, stride: Int):
    """A tile from rows `stride` bytes apart."""
    var rows = source.slice(0, (TILE_ROWS - 1) * stride + TILE_BYTES)
    llvm_intrinsic["llvm.x86.tileloadd64", NoneType](Int8(tile), rows.data, stride)


@always_inline
def store_tile[tile: Int](target: ByteView, stride: Int):
    """A tile to rows `stride` bytes apart."""
    var rows = target.slice(0, (TILE_ROWS - 1) * stride + TILE_BYTES)
    llvm_intrinsic["llvm.x86.tilestored64", NoneType](Int8(tile), rows.data, stride)


@always_inline
def multiply_tile[storage: DType, c: Int, a: Int, b: Int]():
    """Tile `c += a b`."""
    comptime name = ("llvm.x86.tdpbusd" if storage == DType.int8 else "llvm.x86.tdpbf16ps")
    llvm_intrinsic[name, NoneType](Int8(c), Int8(a), Int8(b))


@always_inline
def zero_block[tall: Bool]():
    """The results' tiles, empty: 32 rows of two panels' halves, or 16 if not `tall`."""
    comptime for tile in range(4 if tall else 2):
        llvm_intrinsic["llvm.x86.tilezero", NoneType](Int8(tile))


@always_inline
def load_block(c: ByteView, line: Int):
    """The results' tiles from a block [32, PANEL] of four bytes each, rows `line` bytes apart."""
    var low = c.offset(TILE_ROWS * line)
    load_tile[0](c, line)
    load_tile[1](c.offset(TILE_BYTES), line)
    load_tile[2](low, line)
    load_tile[3](low.offset(TILE_BYTES), line)


@always_inline
def store_block[tall: Bool](c: ByteView, line: Int):
    """The results' tiles to such a block."""
    store_tile[0](c, line)
    store_tile[1](c.offset(TILE_BYTES), line)
    comptime if tall:
        var low = c.offset(TILE_ROWS * line)
        store_tile[2](low, line)
        store_tile[3](low.offset(TILE_BYTES), line)


@always_inline
def add_products[
    storage: DType, tall: Bool
](a: ByteView, strip_bytes: Int, b: ByteView, depth_bytes: Int):
    """Adds `a b` to the results' tiles; the lower half of `a` is `strip_bytes` behind the upper."""
    for step in range(0, depth_bytes, TILE_BYTES):
        comptime for instruction in range(TALL_INSTRUCTIONS if tall else FLAT_INSTRUCTIONS):
            add_product_instruction[storage, instruction](
                a.offset(step * TILE_ROWS), strip_bytes, b.offset(step * PANEL)
            )


@always_inline
def add_product_instruction[
    storage: DType, instruction: Int
](a: ByteView, strip_bytes: Int, b: ByteView):
    """One instruction of `add_products`, as deep as a tile."""
    comptime line = 4 * PANEL
    comptime if instruction == 0:
        load_tile[4](a, TILE_BYTES)
    elif instruction == 1:
        load_tile[6](b, line)
    elif instruction == 2:
        multiply_tile[storage, 0, 4, 6]()
    elif instruction == 3:
        load_tile[7](b.offset(TILE_BYTES), line)
    elif instruction == 4:
        multiply_tile[storage, 1, 4, 7]()
    elif instruction == 5:
        load_tile[5](a.offset(strip_bytes), TILE_BYTES)
    elif instruction == 6:
        multiply_tile[storage, 2, 5, 6]()
    else:
        multiply_tile[storage, 3, 5, 7]()
