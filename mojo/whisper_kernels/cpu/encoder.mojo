"""The audio encoder: log-mel frames to states (AudioEncoder in openai/whisper's model.py).

Two convolutions, then layers of bidirectional self-attention and feed-forward. What lies between
two attentions (output projection, feed-forward, the next projection of queries, keys and values)
is row by row, so a block of rows goes through all of it while it stays in the cache.
"""

from std.math import align_up, ceildiv

import extensibility
from extensibility import InputTensor, OutputTensor
from max.gpu.host import DeviceContext

from ..common.views import ByteView, FloatView, IntView, View, first
from .attention import AttentionScratch, encoder_kv_type
from .encoder_qkv import EncoderHeads
from .encoder_layer import EncoderChunk, EncoderLayer
from .panels import Rows
from .strips import Strips
from .target import tiled
from .threads import Phases, Worker, together
from .weight_reader import Linear, Norm, WeightReader

comptime BLOCK_BYTES = 768 * 1024
"""Of the widest activations of a block of rows, which should stay in L2."""
comptime TILED_BLOCK_BYTES = 2 * BLOCK_BYTES
"""With AMX, which is so fast that reading all weights for every block counts for more."""


def even_block[storage: DType](rows: Int, most: Int, threads: Int) -> Int:
    """A number of rows, whole tiles and at most about `most`, that shares `rows` out evenly."""
    var blocks = ceildiv(ceildiv(rows, most), threads) * threads
    return align_up(ceildiv(rows, blocks), Strips[storage].block_rows)


def transpose(features: FloatView, mels: Int, frames: Int, start: Int, count: Int, y: FloatView):
    """Frames `[start, start + count)` of features [mels, frames] as y [count, mels]; frames
    outside are zero."""
    for t in range(count):
        var frame = start + t
        var row = y.offset(t * mels)
        if frame < 0 or frame >= frames:
            for mel in range(mels):
                row[mel] = 0
        else:
            for mel in range(mels):
                row[mel] = features[mel * frames + frame]


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
    features: FloatView,
    encodings: FloatView,
    weights: ByteView,
    sizes: EncoderSizes,
    states: FloatView,
    stop: IntView,
    threads: Int,
):
    """States [batch, states, width] of features [batch, mels, frames]; anything, where stopped.

    No more windows go through the layers together than keep all threads busy: what lies between two
    layers stays in the cache, and a batch needs little more memory than a window.
    """
    comptime kv_type = encoder_kv_type(storage)
    var width = sizes.width
    var count = sizes.states
    var batch = sizes.batch
    var head_size = width // sizes.heads
    comptime block_bytes = TILED_BLOCK_BYTES if tiled[storage]() else BLOCK_BYTES
    var most = max(Strips[storage].block_rows, block_bytes // (16 * width))
    var most_windows = min(batch, ceildiv(threads * most, count))
    var convolved = FloatView.allocate(most_windows * sizes.frames * width)
    var attended = convolved  # the convolution's output is no longer needed by then
    var heads = EncoderHeads[storage](most_windows, count, sizes.heads, head_size)
    var block = even_block[storage](count, most, threads)
    var blocks = ceildiv(count, block)
    var frame_blocks = ceildiv(sizes.frames, block)
    var query_block = even_block[kv_type](count, AttentionScratch[kv_type, True].queries_each, 1)
    var query_blocks = ceildiv(count, query_block)
    var phases = Phases(ceildiv(batch, most_windows) * (2 + 3 * sizes.layers))

    def body(_thread: Int) {imm}:
        var worker = Worker(phases.counters, stop)
        var rows = EncoderChunk[storage](
            block, width, max(4 * width, 3 * sizes.mels), heads.groups.columns()
        )
        var attention = AttentionScratch[kv_type, True](count, head_size)
        var times = FloatView.allocate((block + 2) * sizes.mels)
        for first_window in range(0, batch, most_windows):
            var windows = min(most_windows, batch - first_window)
            var own_features = features.offset(first_window * sizes.mels * sizes.frames)
            var own_states = states.offset(first_window * count * width)
            var cursor = WeightReader(weights)
            var conv1 = cursor.linear[storage](3 * sizes.mels, width)
            var conv2 = cursor.linear[storage](3 * width, width)
            var layer = EncoderLayer[storage](cursor, width)

            def first_convolution(task: Int) {mut rows, imm}:
                var item = task // frame_blocks
                var start = task % frame_blocks * block
                var height = min(block, sizes.frames - start)
                transpose(
                    own_features.slice(item * sizes.mels * sizes.frames, sizes.mels * sizes.frames),
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
                    convolved.slice((item * sizes.frames + start) * width, height * width),
                    activate=True,
                )

            worker.run(windows * frame_blocks, first_convolution)

            def second_convolution(task: Int) {mut rows, imm}:
                var item = task // blocks
                var start = task % blocks * block
                var height = min(block, count - start)
                if height <= 0:
                    return
                var place = item * count + start
                var x = own_states.slice(place * width, height * width)
                rows.strips.prepare(
                    Rows(
                        convolved.offset(item * sizes.frames * width),
                        2 * width,
                        -width,
                        sizes.frames * width,
                    ),
                    start,
                    start + height,
                    3 * width,
                )
                rows.apply(
                    conv2, x, residual=encodings.slice(start * width, height * width), activate=True
                )
                heads.project(
                    rows, x, item, start, height, layer.attention_norm, layer.attention_in
                )

            worker.run(windows * blocks, second_convolution)
            for index in range(sizes.layers):

                def pack(task: Int) {imm}:
                    heads.pack(task)

                comptime if not EncoderHeads[storage].at_once:
                    worker.run(windows * sizes.heads, pack)

                def attend(task: Int) {mut attention, imm}:
                    var first = task % query_blocks * query_block
                    var last = min(count, first + query_block)
                    if first >= last:
                        return
                    var place = task // query_blocks
                    var item = place // sizes.heads
                    var head = place % sizes.heads
                    var output = attended.offset(item * count * width + head * head_size)
                    heads.attend(attention, place, first, last, output, width)

                worker.run(windows * sizes.heads * query_blocks, attend)
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
                    var x = own_states.slice(place * width, height * width)
                    rows.add_attention(
                        attended.slice(place * width, height * width),
                        height,
                        layer.attention_out,
                        x,
                    )
                    rows.feed_forward(x, height, layer.norm, layer.up, layer.down)
                    if last_layer:
                        rows.normalize_rows(x, height, final_norm, width)
                    else:
                        heads.project(
                            rows, x, item, start, height, next.attention_norm, next.attention_in
                        )

                worker.run(windows * blocks, between)
                layer = next
        times.free()

    together(threads, body)
    convolved.free()


@extensibility.register("whisper.encoder")
struct Encoder:
    """The whole encoder.

    features [batch, mels, frames]; encodings [states, width], the position embeddings;
    weights [bytes]: both convolutions, the layers, the last normalisation;
    heads and layers [1] int32, their numbers; stop [1] int32, which ends the work when the host sets
    it; states [batch, states, width].
    """

    @staticmethod
    def execute[
        target: StaticString, storage: DType
    ](
        states: OutputTensor[dtype=DType.float32, rank=3, ...],
        features: InputTensor[dtype=DType.float32, rank=3, ...],
        encodings: InputTensor[dtype=DType.float32, rank=2, ...],
        weights: InputTensor[dtype=DType.uint8, rank=1, ...],
        heads: InputTensor[dtype=DType.int32, rank=1, ...],
        layers: InputTensor[dtype=DType.int32, rank=1, ...],
        stop: InputTensor[dtype=DType.int32, rank=1, ...],
        threads: InputTensor[dtype=DType.int32, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        encode[storage](
            View(features),
            View(encodings),
            View(weights),
            EncoderSizes(
                features.dim_size(0),
                features.dim_size(1),
                features.dim_size(2),
                states.dim_size(1),
                states.dim_size(2),
                first(heads),
                first(layers),
            ),
            View(states),
            View(stop),
            first(threads),
        )
