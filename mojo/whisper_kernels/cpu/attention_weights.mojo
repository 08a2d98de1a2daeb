"""The weights of attention as integers: the softmax of scores, for the product with int8 values.

The decoder's are integers of 16 bits, so that many small weights are not lost. A processor that
multiplies bytes takes them as two rows of bytes, which doubles the products. The encoder has many
products, so its weights are bytes. Each segment of frames has its own scale: small weights lose
precision only beside large ones.
"""

from std.collections import Array
from std.math import ceildiv
from std.memory import bitcast

from ..common.exp import NEAR_EXP2, exp2_by, exp2_bytes, exp2_fast
from ..common.min_max import larger, largest
from ..common.simd import F32, LANES
from ..common.views import ByteView, FloatView, View
from .amx.strips import tile_place
from .panels import PANEL
from .quantize import FINE_LEAST, FINE_STEPS, STEPS
from .strips import Strips, grouped, store_planes
from .target import DOTS, GROUP, SIGNED, STRIP_ROWS, TILES, WORD

comptime WEIGHTS_AT_ONCE = min(2 * LANES, PANEL)
"""Weights made at once, so that they share the loads of constants."""
comptime PLANES = 2 if DOTS else 1
"""Rows of integers that a row of weights is split into."""
comptime FULL_WEIGHT = FINE_LEAST + FINE_STEPS if DOTS else STEPS
"""The weight of a row's highest score, as an integer."""
comptime BYTES = DOTS and not SIGNED
"""Whether weights may be bytes, which ARM's signed ones would leave 7 bits of."""
comptime SEGMENT = 128
"""Frames of a segment."""
comptime ROWS_AT_ONCE = 4 if STRIP_ROWS % 4 == 0 else 2
"""Neighbours in a strip, whose words are stored together."""


def weigh[
    storage: DType
](scores: FloatView, count: Int, frames: Int, stride: Int, mut weights: Strips[storage]):
    """Weights of scores [count, frames], `stride` apart: `PLANES` rows of integers for each row,
    with the scales that make them a softmax. What lies behind the scores is overwritten."""
    weights.begin(PLANES * count, frames)
    for i in range(count):
        var row = scores.offset(i * stride)
        clear_rest(row, frames, stride)
        var first = PLANES * i
        var start = first // Strips[storage].rows_each * Strips[storage].rows_each
        var strip = weights.strip(start)
        var height = weights.height(start)
        var scale = 1 / weigh_row(row, stride, strip, first - start, height)
        comptime for plane in range(PLANES - 1, -1, -1):
            weights.scales[first + plane] = scale
            weights.zeros[first + plane] = 0
            scale *= 256


def weigh_row(row: FloatView, frames: Int, strip: ByteView, index: Int, height: Int) -> Float32:
    """`FULL_WEIGHT * 2^(row - max(row))` as rows of a strip from `index` on, high bytes
    first; returns the sum. `height` is the strip's, where it is not AMX's."""
    var top = largest(row, frames)
    var sums = SIMD[DType.int32, WEIGHTS_AT_ONCE](0)
    for k in range(0, frames, WEIGHTS_AT_ONCE):
        var x = row.load[WEIGHTS_AT_ONCE](k) - top
        var q = (exp2_fast(x) * FULL_WEIGHT + 0.5).cast[DType.int32]()
        sums += q
        comptime if TILES:
            strip.store(tile_place(index, k), (q >> 8).cast[DType.uint8]())
            strip.store(tile_place(index + 1, k), q.cast[DType.uint8]())
        else:
            var words = strip.bitcast[WORD]().offset(index)
            comptime if PLANES == 2:
                store_planes(q, words.bitcast[DType.uint8](), k, height)
            else:
                var groups = grouped(q)
                comptime for g in range(WEIGHTS_AT_ONCE // GROUP):
                    words[(k // GROUP + g) * height] = groups[g]
    return sums.reduce_add().cast[F32]()


def weigh_by_segments[
    storage: DType
](scores: FloatView, count: Int, frames: Int, stride: Int, mut weights: Strips[storage]):
    """As `weigh`, a byte a weight; `weights` have segments."""
    weights.begin(count, frames)
    for i in range(count):
        clear_rest(scores.offset(i * stride), frames, stride)
        weights.zeros[i] = 0
    for start in range(0, count, STRIP_ROWS):
        var i = start
        var end = min(count, start + STRIP_ROWS)
        while i < end:
            if i + ROWS_AT_ONCE <= end:
                weigh_rows[ROWS_AT_ONCE](scores.offset(i * stride), stride, weights, start, i)
                i += ROWS_AT_ONCE
            else:
                weigh_rows[1](scores.offset(i * stride), stride, weights, start, i)
                i += 1


def weigh_rows[
    rows: Int, storage: DType
](scores: FloatView, stride: Int, weights: Strips[storage], start: Int, first: Int):
    """Neighbours from row `first` on, of the strip that begins at `start`."""
    var height = weights.height(start)
    var words = weights.strip(start).bitcast[WORD]().offset(first - start)
    var scales = weights.scales.offset(first)
    var tops = SIMD[F32, rows](Float32.MIN)
    for segment in range(ceildiv(stride, SEGMENT)):
        var frame = segment * SEGMENT
        var own = SIMD[F32, rows](0)
        comptime for i in range(rows):
            own[i] = largest(scores.offset(i * stride + frame), min(SEGMENT, stride - frame))
        scales.store(segment * weights.between_scales, own)
        tops = larger(tops, own)
    var totals = SIMD[F32, rows](0)
    for segment in range(ceildiv(stride, SEGMENT)):
        var frame = segment * SEGMENT
        var place = segment * weights.between_scales
        var own = scales.load[rows](place)
        var sums = store_weights[rows](
            scores.offset(frame),
            stride,
            min(SEGMENT, stride - frame),
            own,
            words.offset(frame // GROUP * height),
            height,
        )
        var scale = exp2_by[NEAR_EXP2](larger(own - tops, SIMD[F32, rows](-30)))
        totals += scale * sums.cast[F32]()
        scales.store(place, scale)
    for segment in range(ceildiv(stride, SEGMENT)):
        var place = segment * weights.between_scales
        scales.store(place, scales.load[rows](place) / totals)


@always_inline
def store_weights[
    rows: Int
](
    scores: FloatView,
    stride: Int,
    frames: Int,
    tops: SIMD[F32, rows],
    words: View[WORD],
    height: Int,
) -> SIMD[DType.int32, rows]:
    """`255 * 2^(score - top)` of `frames` scores of each row, in words `height` apart; returns their
    sums."""
    comptime groups = LANES // GROUP
    var sums = Array[SIMD[DType.int32, LANES], rows](fill=SIMD[DType.int32, LANES](0))
    for k in range(0, frames, LANES):
        var bytes = Array[SIMD[WORD, groups], rows](fill=SIMD[WORD, groups](0))
        comptime for i in range(rows):
            var q = exp2_bytes(scores.load[LANES](i * stride + k) - tops[i])
            sums[i] += q & 255
            bytes[i] = bitcast[WORD, groups](q.cast[DType.uint8]())
        var target = words.offset(k // GROUP * height)
        var together = side_by_side(bytes)
        comptime for g in range(groups):
            target.store(g * height, together.slice[rows, offset=rows * g]())
    var result = SIMD[DType.int32, rows](0)
    comptime for i in range(rows):
        result[i] = sums[i].reduce_add()
    return result


@always_inline
def side_by_side[
    rows: Int, groups: Int, //
](words: Array[SIMD[WORD, groups], rows]) -> SIMD[WORD, rows * groups]:
    """The first word of each row, then the second of each, and so on."""
    comptime whole = SIMD[WORD, rows * groups]
    comptime if rows == 4:
        var even = words[0].interleave(words[2])
        return rebind[whole](even.interleave(words[1].interleave(words[3])))
    comptime if rows == 2:
        return rebind[whole](words[0].interleave(words[1]))
    return rebind[whole](words[0])


def clear_rest(row: FloatView, frames: Int, stride: Int):
    """Scores past the last frame get no weight."""
    for k in range(frames, stride):
        row[k] = Float32.MIN_FINITE
