"""The left operand as the tile unit reads it: strips of 16 rows, `[depth // 64][16][64]` bytes.

Tiles lie one after another because rows that are far apart would collide in the cache.
"""

from std.math import round

from .extremes import extremes
from .matrix import F32, LANES, TILE_BYTES, TILE_ROWS, padded_depth
from .tensors import Bytes, Floats


@always_inline
def tile_place(row: Int, offset: Int) -> Int:
    """Where byte `offset` of a row lies in its strip."""
    return offset // TILE_BYTES * TILE_BYTES * TILE_ROWS + row * TILE_BYTES + offset % TILE_BYTES


def quantize_tile_row(row: Floats, depth: Int, strip: Bytes, index: Int) -> Tuple[Float32, Float32]:
    """A row as row `index` of a strip of bytes, `x = scale * (q - zero)`; returns scale and zero."""
    var low, high = extremes(row, depth)
    var scale = max(high - low, Float32(1e-30)) / 255
    var inverse = 1 / scale
    var zero = round(-low * inverse)
    # Truncation of what is not negative, with one half added, rounds to the nearest.
    var shift = zero + 0.5
    var whole = depth // LANES * LANES
    for k in range(0, whole, LANES):
        var x = row.unsafe_offset(k).unsafe_load[width=LANES]()
        var q = min(x.fma(SIMD[F32, LANES](inverse), SIMD[F32, LANES](shift)), 255)
        strip.unsafe_offset(tile_place(index, k)).unsafe_store(
            q.cast[DType.int32]().cast[DType.uint8]()
        )
    for k in range(whole, depth):
        var q = min(row[unsafe_offset=k] * inverse + shift, 255)
        strip[unsafe_offset=tile_place(index, k)] = q.cast[DType.int32]().cast[DType.uint8]()
    # What follows meets zeros in the panel.
    return (scale, zero)


def round_tile_row(row: Floats, depth: Int, scale: Float32, strip: Bytes, index: Int):
    """A row, times `scale`, as row `index` of a strip of bfloat16."""
    comptime half = DType.bfloat16
    var whole = depth // LANES * LANES
    for k in range(0, whole, LANES):
        var x = row.unsafe_offset(k).unsafe_load[width=LANES]() * scale
        strip.unsafe_offset(tile_place(index, 2 * k)).unsafe_bitcast[BFloat16]().unsafe_store(
            x.cast[half]()
        )
    for k in range(whole, padded_depth[half](depth)):
        var x = row[unsafe_offset=k] * scale if k < depth else 0
        strip.unsafe_offset(tile_place(index, 2 * k)).unsafe_bitcast[BFloat16]()[
            unsafe_offset=0
        ] = x.cast[half]()
