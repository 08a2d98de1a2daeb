"""Scaled dot-product attention over keys and values packed once per window.

The encoder's self-attention and the decoder's cross-attention are one kernel:
all queries of an item (frames, or tokens of every beam) read the same keys and
values, which are stored as column panels for the matrix product: keys
transposed, `[ceil(frames / PANEL)][head size][PANEL]`, then values,
`[ceil(head size / PANEL)][frames][PANEL]`; a head takes `size` floats, enough for
the longest window. Scores exist for one block of queries at a time.
"""

from std.math import align_up, ceildiv, exp, sqrt
from std.memory.alloc import unsafe_alloc

import extensibility
from extensibility import InputTensor, OutputTensor
from extensibility import _MutableInputTensor as MutableInputTensor
from max.gpu.host import DeviceContext

from .gemm import F32, LANES, PANEL, ROWS, Epilogue, Rows, multiply, scratch_size
from .parallel import parallel
from .tensors import Floats, Ints, first, floats, ints

comptime QUERIES = 4 * ROWS
"""Queries of a block: their scores over 1500 frames stay in L2."""


def pack_head(source: Floats, stride: Int, frames: Int, head_size: Int, value: Int, packed: Floats):
    """One head's keys at `source[frame * stride]`, values `value` further on, into panels."""
    for p in range(ceildiv(frames, PANEL)):
        var panel = packed.unsafe_offset(p * PANEL * head_size)
        for lane in range(PANEL):
            var frame = p * PANEL + lane
            if frame < frames:
                for k in range(head_size):
                    panel[unsafe_offset=k * PANEL + lane] = source[unsafe_offset=frame * stride + k]
            else:
                for k in range(head_size):
                    panel[unsafe_offset=k * PANEL + lane] = 0
    var values = packed.unsafe_offset(align_up(frames, PANEL) * head_size)
    for p in range(ceildiv(head_size, PANEL)):
        var width = min(PANEL, head_size - p * PANEL)
        for frame in range(frames):
            var row = values.unsafe_offset((p * frames + frame) * PANEL)
            var origin_row = source.unsafe_offset(frame * stride + value + p * PANEL)
            for lane in range(width):
                row[unsafe_offset=lane] = origin_row[unsafe_offset=lane]
            for lane in range(width, PANEL):
                row[unsafe_offset=lane] = 0


def exponentiate(row: Floats, count: Int) -> Float32:
    """`row = exp(row - max(row))`; returns the sum."""
    var whole = count // LANES * LANES
    var highest = SIMD[F32, LANES](row[unsafe_offset=0])
    for k in range(0, whole, LANES):
        highest = max(highest, row.unsafe_offset(k).unsafe_load[width=LANES]())
    var top = highest.reduce_max()
    for k in range(whole, count):
        top = max(top, row[unsafe_offset=k])
    var sums = SIMD[F32, LANES](0)
    for k in range(0, whole, LANES):
        var e = exp(row.unsafe_offset(k).unsafe_load[width=LANES]() - top)
        row.unsafe_offset(k).unsafe_store(e)
        sums += e
    var total = sums.reduce_add()
    for k in range(whole, count):
        var e = exp(row[unsafe_offset=k] - top)
        row[unsafe_offset=k] = e
        total += e
    return total


def attend(
    queries: Rows,
    first: Int,
    last: Int,
    packed: Floats,
    frames: Int,
    head_size: Int,
    output: Floats,
    output_stride: Int,
):
    """Attention of queries `[first, last)` of one head; output row i at `output[i * stride]`."""
    var count = last - first
    var padded = align_up(frames, PANEL)
    var scores = unsafe_alloc[Float32](count * padded)
    var scratch = unsafe_alloc[Float32](scratch_size(count, max(head_size, frames)))
    # `multiply` writes row i of C at c[i * stride]; rows start at `first`.
    multiply(
        queries,
        first,
        last,
        packed,
        0,
        padded // PANEL,
        head_size,
        frames,
        scores.unsafe_offset(-first * padded),
        padded,
        Epilogue(),
        scratch,
        scale=1 / sqrt(Float32(head_size)),
    )
    var totals = unsafe_alloc[Float32](count)
    for i in range(count):
        totals[unsafe_offset=i] = exponentiate(scores.unsafe_offset(i * padded), frames)
    multiply(
        Rows(scores, padded, 0, count * padded),
        0,
        count,
        packed.unsafe_offset(padded * head_size),
        0,
        ceildiv(head_size, PANEL),
        frames,
        head_size,
        output.unsafe_offset(first * output_stride),
        output_stride,
        Epilogue(),
        scratch,
    )
    for i in range(count):
        var row = output.unsafe_offset((first + i) * output_stride)
        var scale = 1 / totals[unsafe_offset=i]
        for k in range(head_size):
            row[unsafe_offset=k] *= scale
    scores.unsafe_free()
    scratch.unsafe_free()
    totals.unsafe_free()


def pack_all(
    x: Floats,
    batch: Int,
    frames: Int,
    width: Int,
    key: Int,
    value: Int,
    heads: Int,
    head_size: Int,
    packed: Floats,
    size: Int,
    threads: Int,
):
    """Packs every head of x [batch, frames, width], keys from column `key`, values from `value`,
    into packed [batch, heads, size]."""

    def task(index: Int) {imm}:
        var item = index // heads
        var head = index % heads
        pack_head(
            x.unsafe_offset(item * frames * width + key + head * head_size),
            width,
            frames,
            head_size,
            value - key,
            packed.unsafe_offset(index * size),
        )

    parallel(threads, batch * heads, task)


@extensibility.register("whisper.pack_attention")
struct PackAttention:
    """Keys and values of the encoder's fused projection, packed for `whisper.attention`.

    x [batch, frames, 3 * state] (queries, keys, values); packed [batch, heads, size].
    """

    @staticmethod
    def execute[
        target: StaticString
    ](
        packed: OutputTensor[dtype=DType.float32, rank=3, ...],
        x: InputTensor[dtype=DType.float32, rank=3, ...],
        threads: InputTensor[dtype=DType.int32, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        var width = x.dim_size(2)
        var state = width // 3
        var heads = packed.dim_size(1)
        pack_all(
            floats(x),
            x.dim_size(0),
            x.dim_size(1),
            width,
            state,
            2 * state,
            heads,
            state // heads,
            floats(packed),
            packed.dim_size(2),
            first(threads),
        )


@extensibility.register("whisper.pack_memory")
struct PackMemory:
    """Cross-attention keys and values of one decoder layer, kept for a whole window.

    x [batch, frames, 2 * state] (keys, values); memory [layers, batch, heads, size]; layer [1] int32.
    """

    @staticmethod
    def execute[
        target: StaticString
    ](
        memory: MutableInputTensor[dtype=DType.float32, rank=4, ...],
        x: InputTensor[dtype=DType.float32, rank=3, ...],
        layer: InputTensor[dtype=DType.int32, rank=1, ...],
        threads: InputTensor[dtype=DType.int32, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        var index = first(layer)
        var batch = x.dim_size(0)
        var state = x.dim_size(2) // 2
        var heads = memory.dim_size(2)
        pack_all(
            floats(x),
            batch,
            x.dim_size(1),
            2 * state,
            0,
            state,
            heads,
            state // heads,
            floats(memory).unsafe_offset(index * batch * heads * memory.dim_size(3)),
            memory.dim_size(3),
            first(threads),
        )


def attend_all(
    queries: Floats,
    batch: Int,
    count: Int,
    width: Int,
    packed: Floats,
    size: Int,
    frames: Int,
    heads: Int,
    head_size: Int,
    output: Floats,
    threads: Int,
    windows: Optional[Ints] = None,
):
    """Attention of queries [batch, count, width] (the first heads * head_size columns)
    over packed [batch, heads, size]; output [batch, count, heads * head_size].

    With `windows` [batch], item i reads the keys and values of item windows[i].
    """
    var blocks = ceildiv(count, QUERIES)
    # Blocks of whole strips, as even as they come.
    var block = align_up(ceildiv(count, blocks), ROWS)
    var state = heads * head_size

    def task(index: Int) {imm}:
        var first = index % blocks * block
        var last = min(count, first + block)
        if first >= last:
            return
        var item = index // blocks // heads
        var head = index // blocks % heads
        var window = Int(windows.value()[unsafe_offset=item]) if windows else item
        attend(
            Rows(
                queries.unsafe_offset(item * count * width + head * head_size),
                width,
                0,
                count * width - head * head_size,
            ),
            first,
            last,
            packed.unsafe_offset((window * heads + head) * size),
            frames,
            head_size,
            output.unsafe_offset(item * count * state + head * head_size),
            state,
        )

    parallel(threads, batch * heads * blocks, task)


@extensibility.register("whisper.attention")
struct Attention:
    """The encoder's self-attention.

    x [batch, frames, 3 * state], packed by `whisper.pack_attention`; y [batch, frames, state].
    """

    @staticmethod
    def execute[
        target: StaticString
    ](
        y: OutputTensor[dtype=DType.float32, rank=3, ...],
        x: InputTensor[dtype=DType.float32, rank=3, ...],
        packed: InputTensor[dtype=DType.float32, rank=3, ...],
        threads: InputTensor[dtype=DType.int32, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        var heads = packed.dim_size(1)
        attend_all(
            floats(x),
            x.dim_size(0),
            x.dim_size(1),
            x.dim_size(2),
            floats(packed),
            packed.dim_size(2),
            x.dim_size(1),
            heads,
            y.dim_size(2) // heads,
            floats(y),
            first(threads),
        )


@extensibility.register("whisper.cross_attention")
struct CrossAttention:
    """The decoder's attention to the encoder's output, shared by the beams of an item.

    queries [items, beams * tokens, state]; memory [layers, windows, heads, size];
    windows [items] int32, the window that each item transcribes;
    frames [1] the number of encoder frames; layer [1]; y as queries.
    """

    @staticmethod
    def execute[
        target: StaticString
    ](
        y: OutputTensor[dtype=DType.float32, rank=3, ...],
        queries: InputTensor[dtype=DType.float32, rank=3, ...],
        memory: InputTensor[dtype=DType.float32, rank=4, ...],
        windows: InputTensor[dtype=DType.int32, rank=1, ...],
        frames: InputTensor[dtype=DType.int32, rank=1, ...],
        layer: InputTensor[dtype=DType.int32, rank=1, ...],
        threads: InputTensor[dtype=DType.int32, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        var index = first(layer)
        var items = queries.dim_size(0)
        var heads = memory.dim_size(2)
        var state = queries.dim_size(2)
        attend_all(
            floats(queries),
            items,
            queries.dim_size(1),
            state,
            floats(memory).unsafe_offset(index * memory.dim_size(1) * heads * memory.dim_size(3)),
            memory.dim_size(3),
            first(frames),
            heads,
            state // heads,
            floats(y),
            first(threads),
            ints(windows),
        )
