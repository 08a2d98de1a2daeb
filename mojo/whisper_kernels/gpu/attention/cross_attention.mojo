"""Cross-attention: all queries of an item over the window that it transcribes."""

import extensibility
from extensibility import InputTensor, OutputTensor
from max.gpu.host import DeviceContext
from std.math import ceildiv, exp

from ...common.views import FloatView, IntView, View
from ..launch import ALONE, EARLY, Kernel, launch
from ..thread_block import each_element
from .attend import attend, attention_threads, has_products
from .keys_values import LOWEST, STATISTICS, KeysValues

comptime KEYS_PER_SHARE = 128
"""A split's frames are a multiple of it: so many a block takes at a time."""
comptime MERGE_THREADS = 128
comptime ENOUGH_BLOCKS = 256
"""That keep a GPU busy: where there are so many, frames are not split."""


@fieldwise_init
struct WindowKeysValues[T: DType](ImplicitlyCopyable, KeysValues):
    """An encoded window: keys and values side by side, [frames, 2 * width]."""

    comptime dtype = Self.T
    var cross_kv: View[Self.T]
    var width: Int
    var frames: Int

    @always_inline
    def key(self, index: Int) -> View[Self.T]:
        return self.cross_kv.offset(index * 2 * self.width)

    @always_inline
    def value(self, index: Int) -> View[Self.T]:
        return self.cross_kv.offset(index * 2 * self.width + self.width)

    @always_inline
    def visible(self, query: Int) -> Int:
        return self.frames


@fieldwise_init
struct CrossAttentionKernel[dtype: DType, group: Int, head_size: Int, splits: Int, products: Bool](
    Kernel
):
    """A head of up to `group` queries of an item over one split of the frames."""

    comptime threads = attention_threads(Self.products)
    var queries: View[Self.dtype]
    var cross_kv: View[Self.dtype]
    var windows: IntView
    var split_sums: FloatView
    var output: View[Self.dtype]
    var items: Int
    var tokens: Int
    var heads: Int
    var all_windows: Int
    var frames: Int
    var layer: Int

    @always_inline
    def __call__(self, block: Int):
        comptime split_size = Self.head_size + STATISTICS
        var width = self.heads * Self.head_size
        var head = block % self.heads
        var split = block // self.heads % Self.splits
        var groups = ceildiv(self.tokens, Self.group)
        var first = block // self.heads // Self.splits % groups * Self.group
        var item = block // self.heads // Self.splits // groups
        var share = ceildiv(ceildiv(self.frames, KEYS_PER_SHARE), Self.splits) * KEYS_PER_SHARE
        var window = self.layer * self.all_windows + Int(self.windows[item])
        var column = head * Self.head_size
        var own = item * self.tokens * width + column
        var own_sums = self.split_sums
        comptime if Self.splits > 1:
            own_sums = self.split_sums.offset(
                ((split * self.items + item) * self.tokens * self.heads + head) * split_size
            )
        attend[Self.group, Self.head_size, Self.products, split=Self.splits > 1](
            WindowKeysValues[Self.dtype](
                self.cross_kv.offset(window * self.frames * 2 * width + column), width, self.frames
            ),
            self.queries.offset(own),
            width,
            first,
            min(self.tokens, first + Self.group),
            min(self.frames, split * share),
            min(self.frames, (split + 1) * share),
            self.output.offset(own),
            width,
            own_sums,
            self.heads * split_size,
        )


@fieldwise_init
struct MergeSplitsKernel[dtype: DType, head_size: Int, splits: Int](Kernel):
    """The output of all queries and heads, a thread a number, from the sums of their splits."""

    comptime threads = MERGE_THREADS
    var split_sums: FloatView
    var output: View[Self.dtype]
    var distance: Int
    """Between the splits of a query and head."""

    @always_inline
    def __call__(self, block: Int):
        comptime split_size = Self.head_size + STATISTICS

        def merge(place: Int) {imm}:
            var own = self.split_sums.offset(place // Self.head_size * split_size)
            var sums = Array[Float32, Self.splits](fill=0)
            var largest = Array[Float32, Self.splits](fill=0)
            var totals = Array[Float32, Self.splits](fill=0)
            comptime for i in range(Self.splits):
                var split = own.slice(i * self.distance, split_size)
                sums[i] = split[place % Self.head_size]
                largest[i] = split[Self.head_size]
                totals[i] = split[Self.head_size + 1]
            var peak = LOWEST
            comptime for i in range(Self.splits):
                peak = max(peak, largest[i])
            var sum = Float32(0)
            var total = Float32(0)
            comptime for i in range(Self.splits):
                var weight = exp(largest[i] - peak)
                sum += weight * sums[i]
                total += weight * totals[i]
            self.output[place] = (sum / total).cast[Self.dtype]()

        each_element[Self.threads](block, self.output.count, merge)


@extensibility.register("whisper.gpu.cross_attention")
struct CrossAttention:
    """Attention of an item's queries over its window.

    queries [items, queries, width]; cross_kv [layers, windows, frames, 2 * width]: keys, values;
    windows [items] int32; output [items, queries, width];
    split_sums [splits, items, queries, heads, head size + STATISTICS], room to work in.
    """

    @staticmethod
    def execute[
        target: StaticString,
        dtype: DType,
        tensor_cores: Int,
        head_size: Int,
        group: Int,
        splits: Int,
        early: Bool,
    ](
        output: OutputTensor[dtype=dtype, rank=3, ...],
        split_sums: OutputTensor[dtype=DType.float32, rank=5, ...],
        queries: InputTensor[dtype=dtype, rank=3, ...],
        cross_kv: InputTensor[dtype=dtype, rank=4, ...],
        windows: InputTensor[dtype=DType.int32, rank=1, ...],
        layer: Int32,
        ctx: DeviceContext,
    ) raises:
        var items = queries.dim_size(0)
        var tokens = queries.dim_size(1)
        var heads = queries.dim_size(2) // head_size

        def by_splits[own_group: Int, own_splits: Int]() raises {imm}:
            comptime products = has_products(tensor_cores, head_size)
            var kernel = CrossAttentionKernel[dtype, own_group, head_size, own_splits, products](
                View(queries),
                View(cross_kv),
                View(windows),
                View(split_sums),
                View(output),
                items,
                tokens,
                heads,
                cross_kv.dim_size(1),
                cross_kv.dim_size(2),
                Int(layer),
            )
            comptime start = EARLY if early else ALONE
            var blocks = items * ceildiv(tokens, own_group) * own_splits * heads
            launch[target, start=start](kernel, blocks, ctx)
            comptime if own_splits > 1:
                var merge = MergeSplitsKernel[dtype, head_size, own_splits](
                    View(split_sums), View(output), split_sums.size() // splits
                )
                launch[target, start=start](merge, ceildiv(output.size(), merge.threads), ctx)

        def by_groups[own_group: Int]() raises {imm}:
            if items * ceildiv(tokens, own_group) * heads < ENOUGH_BLOCKS:
                by_splits[own_group, splits]()
            else:
                by_splits[own_group, 1]()

        # A greedy search has one query for each window.
        if tokens == 1:
            by_groups[1]()
        else:
            by_groups[group]()
