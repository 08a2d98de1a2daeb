"""Cross-attention: all queries of an item over the window that it transcribes."""

import extensibility
from extensibility import InputTensor, OutputTensor
from max.gpu import block_idx, thread_idx
from max.gpu.host import DeviceContext
from max.gpu.host.info import is_cpu
from std.math import ceildiv

from ..common.views import Floats, Ints, Numbers, floats, ints, numbers
from .attention import EXTRA, THREADS, TILE, Window, attend_block, join_parts
from .block import blocks_on_cpu


@always_inline
def window_block[
    dtype: DType, group: Int, head_size: Int
](
    block: Int,
    queries: Numbers[dtype],
    memory: Numbers[dtype],
    windows: Ints,
    parts: Floats,
    output: Numbers[dtype],
    items: Int,
    tokens: Int,
    heads: Int,
    all_windows: Int,
    frames: Int,
    splits: Int,
    layer: Int,
):
    """A head of up to `group` queries of an item over one part of the frames."""
    var width = heads * head_size
    var head = block % heads
    var split = block // heads % splits
    var groups = ceildiv(tokens, group)
    var first = block // heads // splits % groups * group
    var item = block // heads // splits // groups
    var share = ceildiv(ceildiv(frames, TILE), splits) * TILE
    var place = layer * all_windows + Int(windows[unsafe_offset=item])
    var column = head * head_size
    var own = item * tokens * width + column
    var part: Optional[Floats] = None
    if splits > 1:
        part = parts.unsafe_offset(
            ((split * items + item) * tokens * heads + head) * (head_size + EXTRA)
        )
    attend_block[group, head_size](
        Window[dtype](
            memory.unsafe_offset(place * frames * 2 * width + column), width, frames
        ),
        queries.unsafe_offset(own),
        width,
        first,
        min(tokens, first + group),
        min(frames, split * share),
        min(frames, (split + 1) * share),
        output.unsafe_offset(own),
        width,
        part,
        heads * (head_size + EXTRA),
    )


def window_kernel[
    dtype: DType, group: Int, head_size: Int
](
    queries: Numbers[dtype],
    memory: Numbers[dtype],
    windows: Ints,
    parts: Floats,
    output: Numbers[dtype],
    items: Int64,
    tokens: Int64,
    heads: Int64,
    all_windows: Int64,
    frames: Int64,
    splits: Int64,
    layer: Int64,
):
    """One block of the grid."""
    window_block[dtype, group, head_size](
        Int(block_idx.x),
        queries,
        memory,
        windows,
        parts,
        output,
        Int(items),
        Int(tokens),
        Int(heads),
        Int(all_windows),
        Int(frames),
        Int(splits),
        Int(layer),
    )


def join_kernel[
    dtype: DType, head_size: Int, splits: Int
](parts: Floats, output: Numbers[dtype], distance: Int64, size: Int64):
    """Puts the parts of all queries and heads together; see `join_parts`."""
    var place = Int(block_idx.x) * THREADS + Int(thread_idx.x)
    if place < Int(size):
        join_parts[dtype, head_size, splits](place, parts, Int(distance), output)


@extensibility.register("whisper.device.attend_window")
struct AttendWindow:
    """Attention of an item's queries over its window.

    queries [items, queries, width]; memory [layers, windows, frames, 2 * width]: keys, values;
    windows [items] int32; output [items, queries, width];
    parts [splits, items, queries, heads, head size + EXTRA] for the parts of the frames.
    """

    @staticmethod
    def execute[
        target: StaticString, dtype: DType, head_size: Int, group: Int, splits: Int
    ](
        output: OutputTensor[dtype=dtype, rank=3, ...],
        parts: OutputTensor[dtype=DType.float32, rank=5, ...],
        queries: InputTensor[dtype=dtype, rank=3, ...],
        memory: InputTensor[dtype=dtype, rank=4, ...],
        windows: InputTensor[dtype=DType.int32, rank=1, ...],
        layer: Int32,
        ctx: DeviceContext,
    ) raises:
        var items = queries.dim_size(0)
        var tokens = queries.dim_size(1)
        var width = queries.dim_size(2)
        var heads = width // head_size
        var blocks = items * ceildiv(tokens, group) * splits * heads
        if blocks == 0:
            return
        var distance = items * tokens * heads * (head_size + EXTRA)
        var size = items * tokens * width
        comptime if is_cpu[target]():
            var queries_at = numbers(queries)
            var memory_at = numbers(memory)
            var windows_at = ints(windows)
            var parts_at = floats(parts)
            var output_at = numbers(output)
            var all_windows = memory.dim_size(1)
            var frames = memory.dim_size(2)

            def block(index: Int) {imm}:
                window_block[dtype, group, head_size](
                    index,
                    queries_at,
                    memory_at,
                    windows_at,
                    parts_at,
                    output_at,
                    items,
                    tokens,
                    heads,
                    all_windows,
                    frames,
                    splits,
                    Int(layer),
                )

            blocks_on_cpu(blocks, block)
            comptime if splits > 1:
                for place in range(size):
                    join_parts[dtype, head_size, splits](place, parts_at, distance, output_at)
        else:
            ctx.enqueue_function[window_kernel[dtype, group, head_size]](
                numbers(queries),
                numbers(memory),
                ints(windows),
                floats(parts),
                numbers(output),
                Int64(items),
                Int64(tokens),
                Int64(heads),
                Int64(memory.dim_size(1)),
                Int64(memory.dim_size(2)),
                Int64(splits),
                Int64(layer),
                grid_dim=blocks,
                block_dim=THREADS,
            )
            comptime if splits > 1:
                ctx.enqueue_function[join_kernel[dtype, head_size, splits]](
                    floats(parts),
                    numbers(output),
                    Int64(distance),
                    Int64(size),
                    grid_dim=ceildiv(size, THREADS),
                    block_dim=THREADS,
                )
