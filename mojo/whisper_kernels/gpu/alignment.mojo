"""Weights of the alignment heads: softmax over frames, normalisation over tokens, median filter.

What they mean, and in which order they are taken, is told in the alignment of the CPU.
"""

import extensibility
from extensibility import InputTensor, OutputTensor
from max.gpu.host import DeviceContext
from std.math import ceildiv, exp, sqrt

from ..common.log_mel import reflect
from ..common.views import FloatView, IntView, View
from .thread_block import Reduction, each_element, each_thread
from .launch import Kernel, launch

comptime SIZES = 3
"""Of an item: its tokens, the tokens to normalise over, its encoder frames."""


@fieldwise_init
struct HeadWeightsKernel[dtype: DType, head_size: Int](Kernel):
    """A head's attention weights of one token: weights [items, heads, tokens, frames].

    Tokens from the item's length on repeat the last one's weights, as the reference pads.
    """

    comptime threads = 256
    var queries: View[Self.dtype]
    var cross_kv: View[Self.dtype]
    var windows: IntView
    var heads: IntView
    var sizes: IntView
    var weights: FloatView
    var items: Int
    var tokens: Int
    var width: Int
    var all_windows: Int
    var window_frames: Int
    var frames: Int
    var head_count: Int

    @always_inline
    def __call__(self, block: Int):
        var token = block % self.tokens
        var head = block // self.tokens % self.head_count
        var item = block // self.tokens // self.head_count
        var line = self.weights.slice(block * self.frames, self.frames)
        var limit = Int(self.sizes[SIZES * item + 2])
        var asking = min(token, Int(self.sizes[SIZES * item]) - 1)
        var layer = Int(self.heads[2 * head])
        var column = Int(self.heads[2 * head + 1]) * Self.head_size
        var query = self.queries.slice(
            ((layer * self.items + item) * self.tokens + asking) * self.width + column,
            Self.head_size,
        )
        var window = layer * self.all_windows + Int(self.windows[item])
        var keys = self.cross_kv.offset(window * self.window_frames * 2 * self.width + column)
        var reduction = Reduction[Self.threads]()
        var scale = 1 / sqrt(Float32(Self.head_size))

        def largest_of(thread: Int) {imm} -> Float32:
            var largest = Float32.MIN_FINITE
            for k in range(thread, limit, Self.threads):
                var key = keys.slice(k * 2 * self.width, Self.head_size)
                var sum = Float32(0)
                for d in range(Self.head_size):
                    sum += query[d].cast[DType.float32]() * key[d].cast[DType.float32]()
                line[k] = scale * sum
                largest = max(largest, scale * sum)
            return largest

        var largest = reduction.maximum(largest_of)

        def sum_of(thread: Int) {imm} -> Float32:
            var total = Float32(0)
            for k in range(thread, limit, Self.threads):
                var weight = exp(line[k] - largest)
                line[k] = weight
                total += weight
            return total

        var total = reduction.sum(sum_of)

        def divide(thread: Int) {imm}:
            for k in range(thread, limit, Self.threads):
                line[k] /= total

        each_thread[Self.threads](divide)


@fieldwise_init
struct NormalizeTokensKernel(Kernel):
    """Mean and deviation of a head's frame over the tokens become 0 and 1; a thread a frame."""

    comptime threads = 256
    var sizes: IntView
    var weights: FloatView
    var tokens: Int
    var frames: Int
    var head_count: Int
    var columns: Int

    @always_inline
    def __call__(self, block: Int):
        def normalize(place: Int) {imm}:
            var frame = place % self.frames
            var item = place // self.frames // self.head_count
            if frame >= Int(self.sizes[SIZES * item + 2]):
                return
            var normalized = Int(self.sizes[SIZES * item + 1])
            var own = self.weights.offset(place // self.frames * self.tokens * self.frames + frame)
            var sum = Float32(0)
            var squares = Float32(0)
            for t in range(normalized):
                var x = own[t * self.frames]
                sum += x
                squares += x * x
            var mean = sum / Float32(normalized)
            var scale = 1 / sqrt(max(squares / Float32(normalized) - mean * mean, 0))
            for t in range(normalized):
                own[t * self.frames] = (own[t * self.frames] - mean) * scale

        each_element[Self.threads](block, self.columns, normalize)


@fieldwise_init
struct MedianFilterKernel(Kernel):
    """The filtered weights of a token and frame, summed over the heads; a thread a frame."""

    comptime threads = 256
    var sizes: IntView
    var median_width: IntView
    var weights: FloatView
    var sums: FloatView
    var tokens: Int
    var frames: Int
    var head_count: Int

    @always_inline
    def __call__(self, block: Int):
        def add_up(place: Int) {imm}:
            var frame = place % self.frames
            var token = place // self.frames % self.tokens
            var item = place // self.frames // self.tokens
            var limit = Int(self.sizes[SIZES * item + 2])
            var sum = Float32(0)
            if frame < limit and token < Int(self.sizes[SIZES * item + 1]):
                for head in range(self.head_count):
                    var line = (item * self.head_count + head) * self.tokens + token
                    var row = self.weights.slice(line * self.frames, self.frames)
                    sum += median(row, frame, limit, Int(self.median_width[0]))
            self.sums[place] = sum

        each_element[Self.threads](block, self.sums.count, add_up)


@always_inline
def median(row: FloatView, frame: Int, frames: Int, width: Int) -> Float32:
    """The median around a frame of a row that is mirrored at its ends; of an even width, the upper.

    It is the value that as many values are smaller than as larger, found by counting; a row of at
    most width // 2 is taken as it is.
    """
    var rank = width // 2
    if frames <= rank:
        return row[frame]
    for i in range(-rank, width - rank):
        var value = row[reflect(frame + i, frames)]
        var smaller = 0
        var equal = 0
        for j in range(-rank, width - rank):
            var other = row[reflect(frame + j, frames)]
            smaller += 1 if other < value else 0
            equal += 1 if other == value else 0
        if smaller <= rank < smaller + equal:
            return value
    return row[frame]


@extensibility.register("whisper.gpu.alignment_weights")
struct AlignmentWeights:
    """The summed weights of the alignment heads.

    queries [layers, items, tokens, width], of the cross-attention;
    cross_kv [layers, windows, frames, 2 * width]; windows [items] int32; heads [n, 2] int32: layer
    and head;
    weight_sizes [items, SIZES] int32; median_width [1] int32; sums [items, tokens, frames];
    weights [items, n, tokens, frames] is room to work in.
    """

    @staticmethod
    def execute[
        target: StaticString, dtype: DType, head_size: Int
    ](
        sums: OutputTensor[dtype=DType.float32, rank=3, ...],
        weights: OutputTensor[dtype=DType.float32, rank=4, ...],
        queries: InputTensor[dtype=dtype, rank=4, ...],
        cross_kv: InputTensor[dtype=dtype, rank=4, ...],
        windows: InputTensor[dtype=DType.int32, rank=1, ...],
        heads: InputTensor[dtype=DType.int32, rank=2, ...],
        weight_sizes: InputTensor[dtype=DType.int32, rank=2, ...],
        median_width: InputTensor[dtype=DType.int32, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        var items = queries.dim_size(1)
        var tokens = queries.dim_size(2)
        var frames = sums.dim_size(2)
        var count = heads.dim_size(0)
        if weights.size() == 0:
            return
        var weigh = HeadWeightsKernel[dtype, head_size](
            View(queries),
            View(cross_kv),
            View(windows),
            View(heads),
            View(weight_sizes),
            View(weights),
            items,
            tokens,
            queries.dim_size(3),
            cross_kv.dim_size(1),
            cross_kv.dim_size(2),
            frames,
            count,
        )
        launch[target](weigh, items * count * tokens, ctx)
        var columns = items * count * frames
        var normalize = NormalizeTokensKernel(
            View(weight_sizes), View(weights), tokens, frames, count, columns
        )
        launch[target](normalize, ceildiv(columns, normalize.threads), ctx)
        var smooth = MedianFilterKernel(
            View(weight_sizes), View(median_width), View(weights), View(sums), tokens, frames, count
        )
        launch[target](smooth, ceildiv(sums.size(), smooth.threads), ctx)
