"""Word timing: cross-attention of the alignment heads, and dynamic time warping.

Source: `timing.py` of openai/whisper and `WhisperReplica::align` of CTranslate2,
whose order of operations is kept: softmax over frames, normalisation over
tokens, median filter over frames, mean over heads, time warping.
"""

from std.math import align_up, sqrt
from std.memory.alloc import unsafe_alloc

import extensibility
from extensibility import InputTensor, OutputTensor
from max.gpu.host import DeviceContext

from .attention import KeysValues, exponentiate
from .gemm import multiply
from ..common.simd import LANES
from .panels import PANEL, Rows
from .threads import parallel
from .strips import Strips
from ..common.views import Floats, Ints, first, floats, ints, numbers


def reflect(index: Int, count: Int) -> Int:
    """The index mirrored at both ends of `[0, count)`."""
    var i = abs(index)
    return i if i < count else 2 * count - i - 2


def add_median(
    row: Floats, count: Int, width: Int, padded: Floats, window: Floats, sums: Floats
):
    """`sums += median of width` along a row; a row of at most width // 2 is taken as it is.

    Sorts shifted copies of the row, lane by lane. `padded` holds count + width + 2 * LANES
    floats, `window` (width + 1) * LANES.
    """
    var rank = width // 2
    if count <= rank:
        for k in range(count):
            sums[unsafe_offset=k] += row[unsafe_offset=k]
        return
    for k in range(-rank, count + rank):
        padded[unsafe_offset=k + rank] = row[unsafe_offset=reflect(k, count)]
    for k in range(count + 2 * rank, align_up(count, LANES) + 2 * rank):
        padded[unsafe_offset=k] = 0
    for k in range(0, count, LANES):
        for i in range(2 * rank + 1):
            var shifted = padded.unsafe_offset(k + i).unsafe_load[width=LANES]()
            window.unsafe_offset(i * LANES).unsafe_store(shifted)
        # Selection of the smallest rank + 1, one at a time.
        for i in range(rank + 1):
            var low = window.unsafe_offset(i * LANES).unsafe_load[width=LANES]()
            for j in range(i + 1, 2 * rank + 1):
                var other = window.unsafe_offset(j * LANES).unsafe_load[width=LANES]()
                window.unsafe_offset(j * LANES).unsafe_store(max(low, other))
                low = min(low, other)
            window.unsafe_offset(i * LANES).unsafe_store(low)
        for lane in range(min(LANES, count - k)):
            sums[unsafe_offset=k + lane] += window[unsafe_offset=rank * LANES + lane]


def head_weights[
    memory_type: DType
](
    queries: Rows,
    tokens: Int,
    length: Int,
    normalized: Int,
    memory: KeysValues[memory_type],
    frames: Int,
    width: Int,
    sums: Floats,
    sums_stride: Int,
):
    """Adds one head's filtered attention weights to `sums` [tokens, sums_stride].

    Tokens from `length` on repeat the last one's weights, as the reference pads; the
    normalisation runs over the first `normalized` tokens.
    """
    var keys = memory.keys
    var stride = align_up(keys.columns, PANEL)
    var scores = unsafe_alloc[Float32](tokens * stride)
    var strips = Strips[memory_type](length, keys.depth)
    strips.prepare(queries, 0, length, keys.depth, 1 / sqrt(Float32(keys.depth)))
    multiply(strips, keys, 0, keys.panels(), scores, stride)
    for t in range(length):
        var row = scores.unsafe_offset(t * stride)
        var scale = 1 / exponentiate(row, frames)
        for k in range(frames):
            row[unsafe_offset=k] *= scale
    for t in range(length, normalized):
        for k in range(frames):
            scores[unsafe_offset=t * stride + k] = scores[unsafe_offset=(length - 1) * stride + k]
    for k in range(frames):
        var sum = Float32(0)
        var squares = Float32(0)
        for t in range(normalized):
            var x = scores[unsafe_offset=t * stride + k]
            sum += x
            squares += x * x
        var mean = sum / Float32(normalized)
        var scale = 1 / sqrt(max(squares / Float32(normalized) - mean * mean, 0))
        for t in range(normalized):
            var x = scores[unsafe_offset=t * stride + k]
            scores[unsafe_offset=t * stride + k] = (x - mean) * scale
    var padded = unsafe_alloc[Float32](frames + width + 2 * LANES)
    var window = unsafe_alloc[Float32]((width + 1) * LANES)
    for t in range(normalized):
        add_median(
            scores.unsafe_offset(t * stride),
            frames,
            width,
            padded,
            window,
            sums.unsafe_offset(t * sums_stride),
        )
    padded.unsafe_free()
    window.unsafe_free()
    scores.unsafe_free()


@extensibility.register("whisper.alignment_weights")
struct AlignmentWeights:
    """The summed weights of the alignment heads.

    queries [layers, items, tokens, state], of the cross-attention;
    memory [layers, items, heads, bytes]; chosen [n, 2] int32: layer and head;
    sizes [items, 3] int32: tokens of the item, tokens to normalise over, encoder frames;
    numbers [2] int32: frames of the memory, width of the median filter;
    sums [items, tokens, frames].
    """

    @staticmethod
    def execute[
        target: StaticString, memory_type: DType
    ](
        sums: OutputTensor[dtype=DType.float32, rank=3, ...],
        queries: InputTensor[dtype=DType.float32, rank=4, ...],
        memory: InputTensor[dtype=DType.uint8, rank=4, ...],
        chosen: InputTensor[dtype=DType.int32, rank=2, ...],
        sizes: InputTensor[dtype=DType.int32, rank=2, ...],
        numbers_: InputTensor[dtype=DType.int32, rank=1, ...],
        threads: InputTensor[dtype=DType.int32, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        var items = queries.dim_size(1)
        var tokens = queries.dim_size(2)
        var state = queries.dim_size(3)
        var all_heads = memory.dim_size(2)
        var head_size = state // all_heads
        var size = memory.dim_size(3)
        var frames = sums.dim_size(2)
        var count = chosen.dim_size(0)
        var pairs = ints(chosen)
        var limits = ints(sizes)
        var memory_frames = first(numbers_)
        var width = Int(ints(numbers_)[unsafe_offset=1])
        var source = floats(queries)
        var packed = numbers(memory)
        var plane = tokens * frames
        var parts = unsafe_alloc[Float32](items * count * plane)

        def task(place: Int) {imm}:
            var item = place // count
            var pair = pairs.unsafe_offset(2 * (place % count))
            var layer = Int(pair[unsafe_offset=0])
            var head = Int(pair[unsafe_offset=1])
            var part = parts.unsafe_offset(place * plane)
            for k in range(plane):
                part[unsafe_offset=k] = 0
            head_weights(
                Rows(
                    source.unsafe_offset(
                        (layer * items + item) * tokens * state + head * head_size
                    ),
                    state,
                    tokens,
                ),
                tokens,
                Int(limits[unsafe_offset=3 * item]),
                Int(limits[unsafe_offset=3 * item + 1]),
                KeysValues[memory_type](
                    packed.unsafe_offset(((layer * items + item) * all_heads + head) * size),
                    memory_frames,
                    head_size,
                ),
                Int(limits[unsafe_offset=3 * item + 2]),
                width,
                part,
                frames,
            )

        parallel(first(threads), items * count, task)
        var destination = floats(sums)
        for item in range(items):
            for k in range(plane):
                var total = Float32(0)
                for i in range(count):
                    total += parts[unsafe_offset=(item * count + i) * plane + k]
                destination[unsafe_offset=item * plane + k] = total
        parts.unsafe_free()


def warp(
    weights: Floats, scale: Float32, stride: Int, rows: Int, columns: Int, path: Ints
) -> Int:
    """The cheapest monotonic path through `-scale * weights`; returns its length.

    path [rows + columns, 2]: pairs (row, column) in rising order.
    """
    comptime infinity = Float32.MAX
    var width = columns + 1
    var costs = unsafe_alloc[Float32]((rows + 1) * width)
    var trace = unsafe_alloc[Int8]((rows + 1) * width)
    for k in range((rows + 1) * width):
        costs[unsafe_offset=k] = infinity
    costs[unsafe_offset=0] = 0
    for i in range(1, rows + 1):
        for j in range(1, columns + 1):
            var diagonal = costs[unsafe_offset=(i - 1) * width + j - 1]
            var up = costs[unsafe_offset=(i - 1) * width + j]
            var left = costs[unsafe_offset=i * width + j - 1]
            var cost = left
            var step = Int8(2)
            if diagonal < up and diagonal < left:
                cost = diagonal
                step = 0
            elif up < diagonal and up < left:
                cost = up
                step = 1
            costs[unsafe_offset=i * width + j] = (
                cost - scale * weights[unsafe_offset=(i - 1) * stride + j - 1]
            )
            trace[unsafe_offset=i * width + j] = step
    for j in range(columns + 1):
        trace[unsafe_offset=j] = 2
    for i in range(rows + 1):
        trace[unsafe_offset=i * width] = 1
    var i = rows
    var j = columns
    var count = 0
    while i > 0 or j > 0:
        path[unsafe_offset=2 * count] = Int32(i - 1)
        path[unsafe_offset=2 * count + 1] = Int32(j - 1)
        count += 1
        var step = trace[unsafe_offset=i * width + j]
        if step != 2:
            i -= 1
        if step != 1:
            j -= 1
    for k in range(count // 2):
        for part in range(2):
            var first = path[unsafe_offset=2 * k + part]
            path[unsafe_offset=2 * k + part] = path[unsafe_offset=2 * (count - 1 - k) + part]
            path[unsafe_offset=2 * (count - 1 - k) + part] = first
    costs.unsafe_free()
    trace.unsafe_free()
    return count


@extensibility.register("whisper.time_warping")
struct TimeWarping:
    """Dynamic time warping of summed attention weights.

    sums [items, tokens, frames]; sizes [items, 3] int32: first token, tokens, frames of
    the item's matrix; heads [1]: by how many the sums are divided;
    paths [items, tokens + frames, 2] int32; counts [items] int32.
    """

    @staticmethod
    def execute[
        target: StaticString
    ](
        paths: OutputTensor[dtype=DType.int32, rank=3, ...],
        counts: OutputTensor[dtype=DType.int32, rank=1, ...],
        sums: InputTensor[dtype=DType.float32, rank=3, ...],
        sizes: InputTensor[dtype=DType.int32, rank=2, ...],
        heads: InputTensor[dtype=DType.float32, rank=1, ...],
        threads: InputTensor[dtype=DType.int32, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        var tokens = sums.dim_size(1)
        var frames = sums.dim_size(2)
        var source = floats(sums)
        var limits = ints(sizes)
        var scale = 1 / floats(heads)[unsafe_offset=0]
        var routes = ints(paths)
        var lengths = ints(counts)

        def task(item: Int) {imm}:
            var first = Int(limits[unsafe_offset=3 * item])
            var rows = Int(limits[unsafe_offset=3 * item + 1])
            lengths[unsafe_offset=item] = Int32(
                warp(
                    source.unsafe_offset((item * tokens + first) * frames),
                    scale,
                    frames,
                    rows,
                    Int(limits[unsafe_offset=3 * item + 2]),
                    routes.unsafe_offset(item * (tokens + frames) * 2),
                )
            )

        parallel(first(threads), sums.dim_size(0), task)
