"""Word timing: cross-attention of the alignment heads, and dynamic time warping.

Source: `timing.py` of openai/whisper and `WhisperReplica::align` of CTranslate2,
whose order of operations is kept: softmax over frames, normalisation over
tokens, median filter over frames, mean over heads, time warping.
"""

from std.math import align_up, sqrt

import extensibility
from extensibility import InputTensor, OutputTensor
from max.gpu.host import DeviceContext

from ..common.log_mel import reflect
from ..common.simd import LANES
from ..common.views import FloatView, IntView, View, first
from .attention import KeysValues, exponentiate
from .gemm import multiply
from .panels import PANEL, Rows
from .strips import Strips
from .threads import parallel


def add_median(
    row: FloatView, count: Int, width: Int, padded: FloatView, window: FloatView, sums: FloatView
):
    """`sums += median of width` along a row; a row of at most width // 2 is taken as it is.

    Sorts shifted copies of the row, lane by lane. An even width takes one value more from the left
    than from the right, and of the two in the middle the larger, as the reference does. `padded`
    holds count + width + 2 * LANES floats, `window` width * LANES.
    """
    var rank = width // 2
    if count <= rank:
        for k in range(count):
            sums[k] += row[k]
        return
    for k in range(-rank, count + rank):
        padded[k + rank] = row[reflect(k, count)]
    for k in range(count + 2 * rank, align_up(count, LANES) + 2 * rank):
        padded[k] = 0
    for k in range(0, count, LANES):
        for i in range(width):
            var shifted = padded.load[LANES](k + i)
            window.store(i * LANES, shifted)
        # Selection of the smallest rank + 1, one at a time.
        for i in range(rank + 1):
            var low = window.load[LANES](i * LANES)
            for j in range(i + 1, width):
                var other = window.load[LANES](j * LANES)
                window.store(j * LANES, max(low, other))
                low = min(low, other)
            window.store(i * LANES, low)
        for lane in range(min(LANES, count - k)):
            sums[k + lane] += window[rank * LANES + lane]


def head_weights[
    kv_type: DType
](
    queries: Rows,
    tokens: Int,
    length: Int,
    normalized: Int,
    kv: KeysValues[kv_type],
    frames: Int,
    width: Int,
    sums: FloatView,
    sums_stride: Int,
):
    """Adds one head's filtered attention weights to `sums` [tokens, sums_stride].

    Tokens from `length` on repeat the last one's weights, as the reference pads; the
    normalisation runs over the first `normalized` tokens.
    """
    var keys = kv.keys
    var stride = align_up(keys.columns, PANEL)
    var scores = FloatView.allocate(tokens * stride)
    var strips = Strips[kv_type](length, keys.depth)
    strips.prepare(queries, 0, length, keys.depth, 1 / sqrt(Float32(keys.depth)))
    multiply(strips, keys, 0, keys.panels(), scores, stride)
    for t in range(length):
        var row = scores.offset(t * stride)
        var scale = 1 / exponentiate(row, frames)
        for k in range(frames):
            row[k] *= scale
    for t in range(length, normalized):
        for k in range(frames):
            scores[t * stride + k] = scores[(length - 1) * stride + k]
    for k in range(frames):
        var sum = Float32(0)
        var squares = Float32(0)
        for t in range(normalized):
            var x = scores[t * stride + k]
            sum += x
            squares += x * x
        var mean = sum / Float32(normalized)
        var scale = 1 / sqrt(max(squares / Float32(normalized) - mean * mean, 0))
        for t in range(normalized):
            var x = scores[t * stride + k]
            scores[t * stride + k] = (x - mean) * scale
    var padded = FloatView.allocate(frames + width + 2 * LANES)
    var window = FloatView.allocate(width * LANES)
    for t in range(normalized):
        add_median(
            scores.offset(t * stride),
            frames,
            width,
            padded,
            window,
            sums.slice(t * sums_stride, frames),
        )
    padded.free()
    window.free()
    scores.free()


@extensibility.register("whisper.alignment_weights")
struct AlignmentWeights:
    """The summed weights of the alignment heads.

    queries [layers, items, tokens, state], of the cross-attention;
    cross_kv [layers, items, heads, bytes]; heads [n, 2] int32: layer and head;
    weight_sizes [items, 3] int32: tokens of the item, tokens to normalise over, encoder frames;
    frames [1], encoder states of a window; median_width [1], of the median filter;
    sums [items, tokens, frames].
    """

    @staticmethod
    def execute[
        target: StaticString, kv_type: DType
    ](
        sums: OutputTensor[dtype=DType.float32, rank=3, ...],
        queries: InputTensor[dtype=DType.float32, rank=4, ...],
        cross_kv: InputTensor[dtype=DType.uint8, rank=4, ...],
        heads: InputTensor[dtype=DType.int32, rank=2, ...],
        weight_sizes: InputTensor[dtype=DType.int32, rank=2, ...],
        frames: InputTensor[dtype=DType.int32, rank=1, ...],
        median_width: InputTensor[dtype=DType.int32, rank=1, ...],
        threads: InputTensor[dtype=DType.int32, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        var items = queries.dim_size(1)
        var tokens = queries.dim_size(2)
        var state = queries.dim_size(3)
        var all_heads = cross_kv.dim_size(2)
        var head_size = state // all_heads
        var size = cross_kv.dim_size(3)
        var aligned = sums.dim_size(2)
        var count = heads.dim_size(0)
        var pairs = View(heads)
        var limits = View(weight_sizes)
        var kv_frames = first(frames)
        var width = first(median_width)
        var source = View(queries)
        var packed = View(cross_kv)
        var plane = tokens * aligned
        var parts = FloatView.allocate(items * count * plane)

        def task(place: Int) {imm}:
            var item = place // count
            var pair = pairs.offset(2 * (place % count))
            var layer = Int(pair[0])
            var head = Int(pair[1])
            var part = parts.slice(place * plane, plane)
            for k in range(plane):
                part[k] = 0
            head_weights(
                Rows(
                    source.offset((layer * items + item) * tokens * state + head * head_size),
                    state,
                    tokens,
                ),
                tokens,
                Int(limits[3 * item]),
                Int(limits[3 * item + 1]),
                KeysValues[kv_type](
                    packed.offset(((layer * items + item) * all_heads + head) * size),
                    kv_frames,
                    head_size,
                ),
                Int(limits[3 * item + 2]),
                width,
                part,
                aligned,
            )

        parallel(first(threads), items * count, task)
        var destination = View(sums)
        for item in range(items):
            for k in range(plane):
                var total = Float32(0)
                for i in range(count):
                    total += parts[(item * count + i) * plane + k]
                destination[item * plane + k] = total
        parts.free()


def warp(
    weights: FloatView, scale: Float32, stride: Int, rows: Int, columns: Int, path: IntView
) -> Int:
    """The cheapest monotonic path through `-scale * weights`; returns its length.

    path [rows + columns, 2]: pairs (row, column) in rising order.
    """
    comptime infinity = Float32.MAX
    var width = columns + 1
    var costs = FloatView.allocate((rows + 1) * width)
    var trace = View[DType.int8].allocate((rows + 1) * width)
    for k in range((rows + 1) * width):
        costs[k] = infinity
    costs[0] = 0
    for i in range(1, rows + 1):
        for j in range(1, columns + 1):
            var diagonal = costs[(i - 1) * width + j - 1]
            var up = costs[(i - 1) * width + j]
            var left = costs[i * width + j - 1]
            var cost = left
            var step = Int8(2)
            if diagonal < up and diagonal < left:
                cost = diagonal
                step = 0
            elif up < diagonal and up < left:
                cost = up
                step = 1
            costs[i * width + j] = cost - scale * weights[(i - 1) * stride + j - 1]
            trace[i * width + j] = step
    for j in range(columns + 1):
        trace[j] = 2
    for i in range(rows + 1):
        trace[i * width] = 1
    var i = rows
    var j = columns
    var count = 0
    while i > 0 or j > 0:
        path[2 * count] = Int32(i - 1)
        path[2 * count + 1] = Int32(j - 1)
        count += 1
        var step = trace[i * width + j]
        if step != 2:
            i -= 1
        if step != 1:
            j -= 1
    for k in range(count // 2):
        for part in range(2):
            var first = path[2 * k + part]
            path[2 * k + part] = path[2 * (count - 1 - k) + part]
            path[2 * (count - 1 - k) + part] = first
    costs.free()
    trace.free()
    return count


@extensibility.register("whisper.dtw")
struct DTW:
    """Dynamic time warping of summed attention weights.

    sums [items, tokens, frames]; matrices [items, 3] int32: first token, tokens, frames of
    the item's matrix; head_count [1]: by how many the sums are divided;
    paths [items, tokens + frames, 2] int32; counts [items] int32.
    """

    @staticmethod
    def execute[
        target: StaticString
    ](
        paths: OutputTensor[dtype=DType.int32, rank=3, ...],
        counts: OutputTensor[dtype=DType.int32, rank=1, ...],
        sums: InputTensor[dtype=DType.float32, rank=3, ...],
        matrices: InputTensor[dtype=DType.int32, rank=2, ...],
        head_count: InputTensor[dtype=DType.float32, rank=1, ...],
        threads: InputTensor[dtype=DType.int32, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        var tokens = sums.dim_size(1)
        var frames = sums.dim_size(2)
        var source = View(sums)
        var limits = View(matrices)
        var scale = 1 / View(head_count)[0]
        var routes = View(paths)
        var lengths = View(counts)

        def task(item: Int) {imm}:
            var first = Int(limits[3 * item])
            var rows = Int(limits[3 * item + 1])
            lengths[item] = Int32(
                warp(
                    source.offset((item * tokens + first) * frames),
                    scale,
                    frames,
                    rows,
                    Int(limits[3 * item + 2]),
                    routes.slice(item * (tokens + frames) * 2, (tokens + frames) * 2),
                )
            )

        parallel(first(threads), sums.dim_size(0), task)
