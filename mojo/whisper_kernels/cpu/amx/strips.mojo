"""The left operand as AMX reads it: strips of 16 rows, `[depth // 64][16][64]` bytes.

Tiles lie one after another because rows that are far apart would collide in the cache.
"""

from ...common.simd import F32, LANES
from ...common.views import ByteView, View
from ..panels import padded_depth
from ..quantize import FINE_LEAST, FINE_STEPS, RowQuantizer
from ..target import TILE_BYTES, TILE_ROWS


@always_inline
def tile_place(row: Int, offset: Int) -> Int:
    """Where byte `offset` of a row lies in its strip."""
    return offset // TILE_BYTES * TILE_BYTES * TILE_ROWS + row * TILE_BYTES + offset % TILE_BYTES


def quantize_tile_row[
    dtype: DType
](row: View[dtype], depth: Int, quantizer: RowQuantizer, strip: ByteView, index: Int):
    """A row as row `index` of a strip of bytes."""
    var whole = depth // LANES * LANES
    for k in range(0, whole, LANES):
        var x = row.load[LANES](k).cast[F32]()
        strip.store(tile_place(index, k), quantizer.integers(x).cast[DType.uint8]())
    for k in range(whole, depth):
        var q = quantizer.integers[1](row[k].cast[F32]())
        strip[tile_place(index, k)] = q.cast[DType.uint8]()
    # What follows meets zeros in the panel.


def split_tile_row[
    dtype: DType
](
    row: View[dtype],
    depth: Int,
    quantizer: RowQuantizer[FINE_LEAST, FINE_STEPS],
    strip: ByteView,
    index: Int,
):
    """A row as two rows of a strip of bytes: high bytes in row `index`, low ones in the next."""
    var whole = depth // LANES * LANES
    for k in range(0, whole, LANES):
        var q = quantizer.integers(row.load[LANES](k).cast[F32]())
        strip.store(tile_place(index, k), (q >> 8).cast[DType.uint8]())
        strip.store(tile_place(index + 1, k), q.cast[DType.uint8]())
    for k in range(whole, depth):
        var q = quantizer.integers[1](row[k].cast[F32]())
        strip[tile_place(index, k)] = (q >> 8).cast[DType.uint8]()
        strip[tile_place(index + 1, k)] = q.cast[DType.uint8]()


def round_tile_row[
    dtype: DType
](row: View[dtype], depth: Int, scale: Float32, strip: ByteView, index: Int):
    """A row, times `scale`, as row `index` of a strip of bfloat16."""
    comptime half = DType.bfloat16
    var whole = depth // LANES * LANES
    for k in range(0, whole, LANES):
        var x = row.load[LANES](k).cast[F32]() * scale
        strip.offset(tile_place(index, 2 * k)).bitcast[DType.bfloat16]().store(x.cast[half]())
    for k in range(whole, padded_depth[half](depth)):
        var x = row[k].cast[F32]() * scale if k < depth else 0
        strip.offset(tile_place(index, 2 * k)).bitcast[DType.bfloat16]()[0] = x.cast[half]()
