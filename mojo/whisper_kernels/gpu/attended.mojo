"""Which encoder frame each token of a step attends to most: by it, live speech is followed.

Source: as in the CPU's kernel of this name.
"""

import extensibility
from extensibility import InputTensor, OutputTensor
from max.gpu.host import DeviceContext

from ..common.views import FloatView, IntView, View
from .alignment import HeadWeightsKernel
from .thread_block import Reduction, each_thread
from .launch import Kernel, launch


@fieldwise_init
struct MostAttendedKernel(Kernel):
    """The first frame with the largest sum of weights over the heads, of one token."""

    comptime threads = 256
    var weights: FloatView
    var content: IntView
    var attended: IntView
    var tokens: Int
    var frames: Int
    var head_count: Int

    @always_inline
    def __call__(self, block: Int):
        var item = block // self.tokens
        var token = block % self.tokens
        var content = Int(self.content[item])
        var heads = self.weights.offset(
            (item * self.head_count * self.tokens + token) * self.frames
        )
        var reduction = Reduction[Self.threads]()

        def largest_of(thread: Int) {imm} -> Float32:
            var largest = Float32.MIN_FINITE
            for k in range(thread, content, Self.threads):
                var sum = Float32(0)
                for head in range(self.head_count):
                    sum += heads[head * self.tokens * self.frames + k]
                heads[k] = sum
                largest = max(largest, sum)
            return largest

        var largest = reduction.maximum(largest_of)

        def first_of(thread: Int) {imm} -> Float32:
            """Negative, so that the largest is the first frame."""
            for k in range(thread, content, Self.threads):
                if heads[k] == largest:
                    return -Float32(k)
            return Float32.MIN_FINITE

        var first = -reduction.maximum(first_of)

        def store(thread: Int) {imm}:
            if thread == 0:
                self.attended[block] = Int32(first)

        each_thread[Self.threads](store)


@extensibility.register("whisper.gpu.attended_frames")
struct AttendedFrames:
    """The frame that each token attends to most, by the alignment heads together.

    queries [layers, items, tokens, width], of the cross-attention;
    cross_kv [layers, windows, frames, 2 * width]; windows [items] int32; heads [n, 2] int32: layer
    and head; weight_sizes [items, SIZES] int32; content [items] int32: the first frames that count,
    one at least; attended [items, tokens] int32; weights [items, n, tokens, frames] is room to
    work in.
    """

    @staticmethod
    def execute[
        target: StaticString, dtype: DType, head_size: Int
    ](
        attended: OutputTensor[dtype=DType.int32, rank=2, ...],
        weights: OutputTensor[dtype=DType.float32, rank=4, ...],
        queries: InputTensor[dtype=dtype, rank=4, ...],
        cross_kv: InputTensor[dtype=dtype, rank=4, ...],
        windows: InputTensor[dtype=DType.int32, rank=1, ...],
        heads: InputTensor[dtype=DType.int32, rank=2, ...],
        weight_sizes: InputTensor[dtype=DType.int32, rank=2, ...],
        content: InputTensor[dtype=DType.int32, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        var items = queries.dim_size(1)
        var tokens = queries.dim_size(2)
        var frames = cross_kv.dim_size(2)
        var count = heads.dim_size(0)
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
            frames,
            frames,
            count,
        )
        launch[target](weigh, items * count * tokens, ctx)
        var find = MostAttendedKernel(
            View(weights), View(content), View(attended), tokens, frames, count
        )
        launch[target](find, items * tokens, ctx)
