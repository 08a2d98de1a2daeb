"""Attention of the decoder on the tensor cores of NVIDIA's GPUs, in the half types.

Each warp of a block goes through keys of its own, 16 at a time, with scores and sums in registers;
only in the end do the warps of a block add up what they found. A product's left side has 16 rows,
and there are up to 8 queries. Where values are weighed, the other 8 rows are what rounding to the
half type has left of the weights, which makes these as good as exact. Which 16 inputs a product
takes is told in `../linear/few_rows_mma.mojo`.

Source: PTX ISA, fragments of mma.m16n8k16.
"""

from max.gpu import barrier, thread_idx
from max.gpu.compute.mma import mma
from max.gpu.primitives import warp
from std.math import exp, sqrt

from ...common.views import FloatView, View
from ..thread_block import load, shared
from .keys_values import LOWEST, STATISTICS, KeysValues

comptime PRODUCT_HEAD_SIZE = 64
"""Of the heads of every Whisper model."""
comptime WARPS = 8
comptime PRODUCT_THREADS = 32 * WARPS
comptime KEYS_PER_WARP = 16
"""That a warp works on at a time."""


@always_inline
def attend_by_products[
    K: KeysValues, //, group: Int, split: Bool
](
    keys: K,
    queries: View[K.dtype],
    stride: Int,
    first: Int,
    last: Int,
    begin: Int,
    end: Int,
    output: View[K.dtype],
    output_stride: Int,
    sums_of_split: Optional[FloatView],
    split_stride: Int,
):
    """As `attend`, of heads of `PRODUCT_HEAD_SIZE`, by `PRODUCT_THREADS`."""
    comptime SIZE = PRODUCT_HEAD_SIZE
    comptime VECTOR = 8
    comptime VECTORS = 2  # of a query or key that a thread has: four share one
    comptime PARTS = SIZE // VECTOR
    comptime PART = SIZE + 2 * STATISTICS  # so that each begins at a multiple of 16 bytes
    var thread = Int(thread_idx.x)
    var own_warp = thread // 32
    var row = thread % 32 // 4  # the query of scores and sums, and a key
    var member = thread % 4
    var scale = 1 / sqrt(Float32(SIZE))
    var asked = Array[SIMD[K.dtype, VECTOR], VECTORS](fill=0)
    if first + row < last:
        comptime for v in range(VECTORS):
            var place = (first + row) * stride + (VECTORS * member + v) * VECTOR
            asked[v] = load[VECTOR](queries, place)
    var seen = min(end, keys.visible(first + row))
    var peak = LOWEST
    var total = Float32(0)
    var sums = Array[SIMD[DType.float32, 4], PARTS](fill=0)
    for tile in range(begin + own_warp * KEYS_PER_WARP, end, WARPS * KEYS_PER_WARP):
        # Keys beyond the end repeat the last one, and have no weight.
        var own_keys = Array[SIMD[K.dtype, VECTOR], 2 * VECTORS](fill=0)
        comptime for i in range(2):
            var key = keys.key(min(tile + 8 * i + row, end - 1))
            comptime for v in range(VECTORS):
                own_keys[i * VECTORS + v] = load[VECTOR](key, (VECTORS * member + v) * VECTOR)
        var values = Array[SIMD[K.dtype, VECTOR], 4](fill=0)
        comptime for i in range(4):
            var value = keys.value(min(tile + _key[i](member), end - 1))
            values[i] = load[VECTOR](value, row * VECTOR)
        var products = Array[SIMD[DType.float32, 4], 2](fill=0)
        comptime for i in range(2):
            comptime for half in range(2 * VECTORS):
                comptime offset = 4 * (half % 2)
                var left = asked[half // 2].slice[4, offset=offset]()
                var right = own_keys[i * VECTORS + half // 2].slice[4, offset=offset]()
                var before = products[i]
                mma(products[i], _rows(left, 0), right, before)
        var scores = SIMD[DType.float32, 4](LOWEST)
        comptime for i in range(4):
            if tile + _key[i](member) < seen:
                scores[i] = products[i // 2][i % 2] * scale
        var highest = max(peak, scores.reduce_max())
        highest = max(highest, warp.shuffle_xor(highest, 1))
        highest = max(highest, warp.shuffle_xor(highest, 2))
        var decay = exp(peak - highest)
        peak = highest
        var weights = exp(scores - highest)
        total = total * decay + weights.reduce_add()
        var rounded = weights.cast[K.dtype]()
        var rest = (weights - rounded.cast[DType.float32]()).cast[K.dtype]()
        comptime for j in range(PARTS):
            var right = SIMD[K.dtype, 4](values[0][j], values[1][j], values[2][j], values[3][j])
            var before = sums[j] * decay
            mma(sums[j], _rows(rounded, rest), right, before)
    total += warp.shuffle_xor(total, 1)
    total += warp.shuffle_xor(total, 2)
    var parts = shared[WARPS * group * PART]()
    if row < group:
        var own = parts.offset((own_warp * group + row) * PART)
        comptime for half in range(2):
            var added = SIMD[DType.float32, VECTOR](0)
            comptime for j in range(PARTS):
                added[j] = sums[j][half] + sums[j][half + 2]
            own.store[alignment=16]((VECTORS * member + half) * VECTOR, added)
        if member == 0:
            own[SIZE] = peak
            own[SIZE + 1] = total
    barrier()
    for place in range(thread, group * SIZE, PRODUCT_THREADS):
        var query = first + place // SIZE
        var d = place % SIZE
        if query < last:
            var of_query = parts.offset(place // SIZE * PART)
            var largest = LOWEST
            comptime for i in range(WARPS):
                largest = max(largest, of_query[i * group * PART + SIZE])
            var sum = Float32(0)
            var whole = Float32(0)
            comptime for i in range(WARPS):
                var own = of_query.offset(i * group * PART)
                var weight = exp(own[SIZE] - largest)
                sum += weight * own[d]
                whole += weight * own[SIZE + 1]
            comptime if split:
                var own = sums_of_split.value().slice(query * split_stride, SIZE + STATISTICS)
                own[d] = sum
                if d == 0:
                    own[SIZE] = largest
                    own[SIZE + 1] = whole
            else:
                output[query * output_stride + d] = (sum / whole).cast[K.dtype]()


@always_inline
def _key[number: Int](member: Int) -> Int:
    """Which of 16 keys is a thread's score of that number."""
    return number // 2 * 8 + 2 * member + number % 2


@always_inline
def _rows[dtype: DType](upper: SIMD[dtype, 4], lower: SIMD[dtype, 4]) -> SIMD[dtype, 8]:
    """The left side of a product: a thread's inputs of a row, and of the one eight below it."""
    var first = upper.slice[2, offset=0]().join(lower.slice[2, offset=0]())
    return first.join(upper.slice[2, offset=2]().join(lower.slice[2, offset=2]()))
