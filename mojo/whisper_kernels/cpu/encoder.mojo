"""The audio encoder: log-mel frames to states (AudioEncoder in openai/whisper's model.py).

Two convolutions, then layers of bidirectional self-attention and feed-forward. What lies between
two attentions (output projection, feed-forward, the next projection of queries, keys and values)
is row by row, so a block of rows goes through all of it while it stays in the cache.
"""

from std.math import align_up, ceildiv
from std.memory.alloc import unsafe_alloc

import extensibility
from extensibility import InputTensor, OutputTensor
from max.gpu.host import DeviceContext

from .attention import AttentionScratch, encoder_memory
from .encoder_heads import EncoderHeads
from .panels import Rows, tiled
from .threads import Member, Phases, together
from .weights import Linear, Norm, Parameters
from .row_block import RowBlock
from .strips import Strips
from ..common.views import Bytes, Floats, first, floats, ints, numbers

comptime BLOCK_BYTES = 768 * 1024
"""Of the widest activations of a block of rows, which should stay in L2."""
comptime TILED_BLOCK_BYTES = 2 * BLOCK_BYTES
"""With the tile unit, which is so fast that reading all weights for every block counts for more."""


struct EncoderLayer[storage: DType](ImplicitlyCopyable):
    """Weights of a layer."""

    var attention_norm: Norm
    var attention_in: Linear[Self.storage]
    """To queries, keys and values."""
    var attention_out: Linear[Self.storage]
    var norm: Norm
    var up: Linear[Self.storage]
    var down: Linear[Self.storage]

    def __init__(out self, mut parameters: Parameters, width: Int):
        self.attention_norm = parameters.norm(width)
        self.attention_in = parameters.linear[Self.storage](width, 3 * width)
        self.attention_out = parameters.linear[Self.storage](width, width)
        self.norm = parameters.norm(width)
        self.up = parameters.linear[Self.storage](width, 4 * width)
        self.down = parameters.linear[Self.storage](4 * width, width)


def even_block[storage: DType](rows: Int, most: Int, threads: Int) -> Int:
    """A number of rows, whole tiles and at most about `most`, that shares `rows` out evenly."""
    var blocks = ceildiv(ceildiv(rows, most), threads) * threads
    return align_up(ceildiv(rows, blocks), Strips[storage].block_rows)


def transpose(
    features: Floats, mels: Int, frames: Int, start: Int, count: Int, y: Floats
):
    """Frames `[start, start + count)` of features [mels, frames] as y [count, mels]; frames
    outside are zero."""
    for t in range(count):
        var frame = start + t
        var row = y.unsafe_offset(t * mels)
        if frame < 0 or frame >= frames:
            for mel in range(mels):
                row[unsafe_offset=mel] = 0
        else:
            for mel in range(mels):
                row[unsafe_offset=mel] = features[unsafe_offset=mel * frames + frame]


@fieldwise_init
struct EncoderSizes(ImplicitlyCopyable):
    """Sizes of a batch and of the model."""

    var batch: Int
    var mels: Int
    var frames: Int
    var states: Int
    var width: Int
    var heads: Int
    var layers: Int


def encode[
    storage: DType
](
    features: Floats,
    encodings: Floats,
    parameters: Bytes,
    sizes: EncoderSizes,
    states: Floats,
    threads: Int,
):
    """States [batch, states, width] of features [batch, mels, frames]."""
    comptime memory = encoder_memory(storage)
    var width = sizes.width
    var count = sizes.states
    var batch = sizes.batch
    var head_size = width // sizes.heads
    var convolved = unsafe_alloc[Float32](batch * sizes.frames * width, alignment=64)
    var attended = convolved  # the convolution's output is no longer needed by then
    var heads = EncoderHeads[storage](batch, count, sizes.heads, head_size)
    comptime block_bytes = TILED_BLOCK_BYTES if tiled[storage]() else BLOCK_BYTES
    var most = max(Strips[storage].block_rows, block_bytes // (16 * width))
    var block = even_block[storage](count, most, threads)
    var blocks = ceildiv(count, block)
    var frame_blocks = ceildiv(sizes.frames, block)
    var query_block = even_block[memory](count, AttentionScratch[memory].queries_each, 1)
    var query_blocks = ceildiv(count, query_block)
    var phases = Phases(2 + 3 * sizes.layers)

    def body(_worker: Int) {imm}:
        var member = Member(phases.counters)
        var cursor = Parameters(parameters)
        var rows = RowBlock[storage](
            block, width, max(4 * width, 3 * sizes.mels), heads.groups.columns()
        )
        var attention = AttentionScratch[memory](count, head_size)
        var conv1 = cursor.linear[storage](3 * sizes.mels, width)
        var conv2 = cursor.linear[storage](3 * width, width)
        var layer = EncoderLayer[storage](cursor, width)
        var times = unsafe_alloc[Float32]((block + 2) * sizes.mels, alignment=64)

        def first_convolution(task: Int) {mut rows, imm}:
            var item = task // frame_blocks
            var start = task % frame_blocks * block
            var height = min(block, sizes.frames - start)
            transpose(
                features.unsafe_offset(item * sizes.mels * sizes.frames),
                sizes.mels,
                sizes.frames,
                start - 1,
                height + 2,
                times,
            )
            rows.strips.prepare(
                Rows(times, sizes.mels, 0, (height + 2) * sizes.mels),
                0,
                height,
                3 * sizes.mels,
            )
            rows.apply(
                conv1,
                convolved.unsafe_offset((item * sizes.frames + start) * width),
                activate=True,
            )

        member.run(batch * frame_blocks, first_convolution)
        times.unsafe_free()

        def second_convolution(task: Int) {mut rows, imm}:
            var item = task // blocks
            var start = task % blocks * block
            var height = min(block, count - start)
            if height <= 0:
                return
            var place = item * count + start
            var x = states.unsafe_offset(place * width)
            rows.strips.prepare(
                Rows(
                    convolved.unsafe_offset(item * sizes.frames * width),
                    2 * width,
                    -width,
                    sizes.frames * width,
                ),
                start,
                start + height,
                3 * width,
            )
            rows.apply(
                conv2, x, residual=encodings.unsafe_offset(start * width), activate=True
            )
            heads.project(
                rows, x, item, start, height, layer.attention_norm, layer.attention_in
            )

        member.run(batch * blocks, second_convolution)
        for index in range(sizes.layers):

            def pack(task: Int) {imm}:
                heads.pack(task)

            comptime if not EncoderHeads[storage].at_once:
                member.run(batch * sizes.heads, pack)

            def attend(task: Int) {mut attention, imm}:
                var first = task % query_blocks * query_block
                var last = min(count, first + query_block)
                if first >= last:
                    return
                var place = task // query_blocks
                var item = place // sizes.heads
                var head = place % sizes.heads
                var output = attended.unsafe_offset(item * count * width + head * head_size)
                heads.attend(attention, place, first, last, output, width)

            member.run(batch * sizes.heads * query_blocks, attend)
            var last_layer = index == sizes.layers - 1
            var next = layer
            if not last_layer:
                next = EncoderLayer[storage](cursor, width)
            var final_norm = layer.norm
            if last_layer:
                final_norm = cursor.norm(width)

            def between(task: Int) {mut rows, imm}:
                var start = task % blocks * block
                var height = min(block, count - start)
                if height <= 0:
                    return
                var item = task // blocks
                var place = item * count + start
                var x = states.unsafe_offset(place * width)
                rows.add_attention(
                    attended.unsafe_offset(place * width), height, layer.attention_out, x
                )
                rows.feed_forward(x, height, layer.norm, layer.up, layer.down)
                if last_layer:
                    rows.normalize_rows(x, height, final_norm, width)
                else:
                    heads.project(
                        rows, x, item, start, height, next.attention_norm, next.attention_in
                    )

            member.run(batch * blocks, between)
            layer = next

    together(threads, body)
    convolved.unsafe_free()


@extensibility.register("whisper.encoder")
struct Encoder:
    """The whole encoder.

    features [batch, mels, frames]; encodings [states, width], the position embeddings;
    parameters [bytes]: both convolutions, the layers, the last normalisation;
    sizes [2] int32: heads, layers; states [batch, states, width].
    """

    @staticmethod
    def execute[
        target: StaticString, storage: DType
    ](
        states: OutputTensor[dtype=DType.float32, rank=3, ...],
        features: InputTensor[dtype=DType.float32, rank=3, ...],
        encodings: InputTensor[dtype=DType.float32, rank=2, ...],
        parameters: InputTensor[dtype=DType.uint8, rank=1, ...],
        sizes: InputTensor[dtype=DType.int32, rank=1, ...],
        threads: InputTensor[dtype=DType.int32, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        encode[storage](
            floats(features),
            floats(encodings),
            numbers(parameters),
            EncoderSizes(
                features.dim_size(0),
                features.dim_size(1),
                features.dim_size(2),
                states.dim_size(1),
                states.dim_size(2),
                first(sizes),
                Int(ints(sizes)[unsafe_offset=1]),
            ),
            floats(states),
            first(threads),
        )
