"""Weights of the alignment heads: softmax over frames, normalisation over tokens, median filter.

What they mean, and in which order they are taken, is told in the alignment of the CPU.
"""

import extensibility
from extensibility import InputTensor, OutputTensor
from max.gpu import block_idx, thread_idx
from max.gpu.host import DeviceContext
from max.gpu.host.info import is_cpu
from std.math import ceildiv, exp, sqrt

from ..cpu.alignment import reflect
from ..common.views import Floats, Ints, Numbers, floats, ints, numbers
from .block import Reduction, blocks_on_cpu, step

comptime THREADS = 256


@always_inline
def weights_block[
    dtype: DType, head_size: Int
](
    block: Int,
    queries: Numbers[dtype],
    memory: Numbers[dtype],
    chosen: Ints,
    sizes: Ints,
    parts: Floats,
    items: Int,
    tokens: Int,
    width: Int,
    memory_frames: Int,
    frames: Int,
    count: Int,
):
    """A head's attention weights of one token: parts [items, count, tokens, frames].

    Tokens from the item's length on repeat the last one's weights, as the reference pads.
    """
    var token = block % tokens
    var head = block // tokens % count
    var item = block // tokens // count
    var line = parts.unsafe_offset(block * frames)
    var limit = Int(sizes[unsafe_offset=3 * item + 2])
    var asking = min(token, Int(sizes[unsafe_offset=3 * item]) - 1)
    var layer = Int(chosen[unsafe_offset=2 * head])
    var column = Int(chosen[unsafe_offset=2 * head + 1]) * head_size
    var query = queries.unsafe_offset(((layer * items + item) * tokens + asking) * width + column)
    var keys = memory.unsafe_offset((layer * items + item) * memory_frames * 2 * width + column)
    var reduction = Reduction[THREADS]()
    var scale = 1 / sqrt(Float32(head_size))

    def top_of(thread: Int) {imm} -> Float32:
        var top = Float32.MIN_FINITE
        for k in range(thread, limit, THREADS):
            var key = keys.unsafe_offset(k * 2 * width)
            var sum = Float32(0)
            for d in range(head_size):
                sum += (
                    query[unsafe_offset=d].cast[DType.float32]()
                    * key[unsafe_offset=d].cast[DType.float32]()
                )
            line[unsafe_offset=k] = scale * sum
            top = max(top, scale * sum)
        return top

    var top = reduction.maximum(top_of)

    def sum_of(thread: Int) {imm} -> Float32:
        var total = Float32(0)
        for k in range(thread, limit, THREADS):
            var weight = exp(line[unsafe_offset=k] - top)
            line[unsafe_offset=k] = weight
            total += weight
        return total

    var total = reduction.sum(sum_of)

    def divide(thread: Int) {imm}:
        for k in range(thread, limit, THREADS):
            line[unsafe_offset=k] /= total

    step[THREADS](divide)


@always_inline
def normalize_frame(
    place: Int, sizes: Ints, parts: Floats, tokens: Int, frames: Int, count: Int
):
    """Mean and deviation of one frame over the tokens become 0 and 1."""
    var frame = place % frames
    var item = place // frames // count
    if frame >= Int(sizes[unsafe_offset=3 * item + 2]):
        return
    var normalized = Int(sizes[unsafe_offset=3 * item + 1])
    var own = parts.unsafe_offset(place // frames * tokens * frames + frame)
    var sum = Float32(0)
    var squares = Float32(0)
    for t in range(normalized):
        var x = own[unsafe_offset=t * frames]
        sum += x
        squares += x * x
    var mean = sum / Float32(normalized)
    var scale = 1 / sqrt(max(squares / Float32(normalized) - mean * mean, 0))
    for t in range(normalized):
        own[unsafe_offset=t * frames] = (own[unsafe_offset=t * frames] - mean) * scale


@always_inline
def median(row: Floats, frame: Int, frames: Int, width: Int) -> Float32:
    """The median around a frame of a row that is mirrored at its ends.

    It is the value that as many values are smaller than as larger, found by counting; a row of at
    most width // 2 is taken as it is.
    """
    var rank = width // 2
    if frames <= rank:
        return row[unsafe_offset=frame]
    for i in range(-rank, rank + 1):
        var value = row[unsafe_offset=reflect(frame + i, frames)]
        var smaller = 0
        var equal = 0
        for j in range(-rank, rank + 1):
            var other = row[unsafe_offset=reflect(frame + j, frames)]
            smaller += 1 if other < value else 0
            equal += 1 if other == value else 0
        if smaller <= rank < smaller + equal:
            return value
    return row[unsafe_offset=frame]


@always_inline
def filter_place(
    place: Int,
    sizes: Ints,
    numbers: Ints,
    parts: Floats,
    sums: Floats,
    tokens: Int,
    frames: Int,
    count: Int,
):
    """The filtered weights of a token and frame, added up over the heads."""
    var frame = place % frames
    var token = place // frames % tokens
    var item = place // frames // tokens
    var limit = Int(sizes[unsafe_offset=3 * item + 2])
    var sum = Float32(0)
    if frame < limit and token < Int(sizes[unsafe_offset=3 * item + 1]):
        for head in range(count):
            var row = parts.unsafe_offset(((item * count + head) * tokens + token) * frames)
            sum += median(row, frame, limit, Int(numbers[unsafe_offset=1]))
    sums[unsafe_offset=place] = sum


def weights_kernel[
    dtype: DType, head_size: Int
](
    queries: Numbers[dtype],
    memory: Numbers[dtype],
    chosen: Ints,
    sizes: Ints,
    parts: Floats,
    items: Int64,
    tokens: Int64,
    width: Int64,
    memory_frames: Int64,
    frames: Int64,
    count: Int64,
):
    """One block of the grid."""
    weights_block[dtype, head_size](
        Int(block_idx.x),
        queries,
        memory,
        chosen,
        sizes,
        parts,
        Int(items),
        Int(tokens),
        Int(width),
        Int(memory_frames),
        Int(frames),
        Int(count),
    )


def normalize_kernel(
    sizes: Ints, parts: Floats, tokens: Int64, frames: Int64, count: Int64, size: Int64
):
    """One place a thread."""
    var place = Int(block_idx.x) * THREADS + Int(thread_idx.x)
    if place < Int(size):
        normalize_frame(place, sizes, parts, Int(tokens), Int(frames), Int(count))


def filter_kernel(
    sizes: Ints,
    numbers: Ints,
    parts: Floats,
    sums: Floats,
    tokens: Int64,
    frames: Int64,
    count: Int64,
    size: Int64,
):
    """One place a thread."""
    var place = Int(block_idx.x) * THREADS + Int(thread_idx.x)
    if place < Int(size):
        filter_place(place, sizes, numbers, parts, sums, Int(tokens), Int(frames), Int(count))


@extensibility.register("whisper.device.alignment_weights")
struct AlignmentWeights:
    """The summed weights of the alignment heads.

    queries [layers, items, tokens, width], of the cross-attention;
    memory [layers, items, frames, 2 * width]; chosen [n, 2] int32: layer and head;
    sizes [items, 3] int32: tokens of the item, tokens to normalise over, encoder frames;
    numbers [2] int32: unused, width of the median filter; sums [items, tokens, frames];
    parts [items, n, tokens, frames] is room to work in.
    """

    @staticmethod
    def execute[
        target: StaticString, dtype: DType, head_size: Int
    ](
        sums: OutputTensor[dtype=DType.float32, rank=3, ...],
        parts: OutputTensor[dtype=DType.float32, rank=4, ...],
        queries: InputTensor[dtype=dtype, rank=4, ...],
        memory: InputTensor[dtype=dtype, rank=4, ...],
        chosen: InputTensor[dtype=DType.int32, rank=2, ...],
        sizes: InputTensor[dtype=DType.int32, rank=2, ...],
        numbers_: InputTensor[dtype=DType.int32, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        var items = queries.dim_size(1)
        var tokens = queries.dim_size(2)
        var width = queries.dim_size(3)
        var memory_frames = memory.dim_size(2)
        var frames = sums.dim_size(2)
        var count = chosen.dim_size(0)
        var blocks = items * count * tokens
        var columns = items * count * frames
        var size = items * tokens * frames
        if blocks == 0 or frames == 0:
            return
        comptime if is_cpu[target]():
            var queries_at = numbers(queries)
            var memory_at = numbers(memory)
            var chosen_at = ints(chosen)
            var sizes_at = ints(sizes)
            var numbers_at = ints(numbers_)
            var parts_at = floats(parts)
            var sums_at = floats(sums)

            def weigh(block: Int) {imm}:
                weights_block[dtype, head_size](
                    block,
                    queries_at,
                    memory_at,
                    chosen_at,
                    sizes_at,
                    parts_at,
                    items,
                    tokens,
                    width,
                    memory_frames,
                    frames,
                    count,
                )

            blocks_on_cpu(blocks, weigh)
            for place in range(columns):
                normalize_frame(place, sizes_at, parts_at, tokens, frames, count)
            for place in range(size):
                filter_place(
                    place, sizes_at, numbers_at, parts_at, sums_at, tokens, frames, count
                )
        else:
            ctx.enqueue_function[weights_kernel[dtype, head_size]](
                numbers(queries),
                numbers(memory),
                ints(chosen),
                ints(sizes),
                floats(parts),
                Int64(items),
                Int64(tokens),
                Int64(width),
                Int64(memory_frames),
                Int64(frames),
                Int64(count),
                grid_dim=blocks,
                block_dim=THREADS,
            )
            ctx.enqueue_function[normalize_kernel](
                ints(sizes),
                floats(parts),
                Int64(tokens),
                Int64(frames),
                Int64(count),
                Int64(columns),
                grid_dim=ceildiv(columns, THREADS),
                block_dim=THREADS,
            )
            ctx.enqueue_function[filter_kernel](
                ints(sizes),
                ints(numbers_),
                floats(parts),
                floats(sums),
                Int64(tokens),
                Int64(frames),
                Int64(count),
                Int64(size),
                grid_dim=ceildiv(size, THREADS),
                block_dim=THREADS,
            )
