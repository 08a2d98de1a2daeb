"""What precedes the layers: token embeddings, and the inputs of convolutions side by side."""

import extensibility
from extensibility import InputTensor, OutputTensor
from max.gpu import block_idx, thread_idx
from max.gpu.host import DeviceContext
from max.gpu.host.info import is_cpu
from std.sys import is_gpu

from ..common.views import Floats, Ints, Numbers, floats, ints, numbers
from .block import blocks_on_cpu

comptime THREADS = 256


@always_inline
def embed_block[
    dtype: DType
](
    place: Int,
    tokens: Ints,
    positions: Ints,
    embeddings: Numbers[dtype],
    scale: Floats,
    encodings: Floats,
    x: Floats,
    length: Int,
    width: Int,
):
    """The embedding of one token, a row's tokens being `length`, plus that of its position."""
    var token = Int(tokens[unsafe_offset=place])
    var position = Int(positions[unsafe_offset=place // length]) + place % length

    for thread in threads(width):
        var value = embeddings[unsafe_offset=token * width + thread].cast[DType.float32]()
        comptime if dtype == DType.int8:
            value *= scale[unsafe_offset=token]
        x[unsafe_offset=place * width + thread] = (
            value + encodings[unsafe_offset=position * width + thread]
        )


@always_inline
def threads(count: Int) -> type_of(range(0, 0, 1)):
    """What the calling thread does of `count` independent things."""
    comptime if is_gpu():
        return range(Int(thread_idx.x), count, THREADS)
    else:
        return range(0, count, 1)


def embed_kernel[
    dtype: DType
](
    tokens: Ints,
    positions: Ints,
    embeddings: Numbers[dtype],
    scale: Floats,
    encodings: Floats,
    x: Floats,
    length: Int64,
    width: Int64,
):
    """One block of the grid."""
    embed_block[dtype](
        Int(block_idx.x),
        tokens,
        positions,
        embeddings,
        scale,
        encodings,
        x,
        Int(length),
        Int(width),
    )


def embed[
    target: StaticString, dtype: DType
](
    tokens: Ints,
    positions: Ints,
    embeddings: Numbers[dtype],
    scale: Floats,
    encodings: Floats,
    x: Floats,
    count: Int,
    rows: Int,
    width: Int,
    ctx: DeviceContext,
) raises:
    """`count` tokens, shared out among the rows; embeddings of int8 are multiplied by
    `scale [vocabulary]`, which is not read for other types."""
    if count == 0:
        return
    var length = count // rows
    comptime if is_cpu[target]():

        def block(index: Int) {imm}:
            embed_block[dtype](
                index, tokens, positions, embeddings, scale, encodings, x, length, width
            )

        blocks_on_cpu(count, block)
    else:
        ctx.enqueue_function[embed_kernel[dtype]](
            tokens,
            positions,
            embeddings,
            scale,
            encodings,
            x,
            Int64(length),
            Int64(width),
            grid_dim=count,
            block_dim=THREADS,
        )


@extensibility.register("whisper.device.embed")
struct Embed:
    """Embeddings of tokens [items, queries] int32 and of where they stand.

    positions [rows] int32: of each row's first token, with items * queries tokens shared out
    among the rows; embeddings [vocabulary, width]; encodings [context, width];
    x [items, queries, width].
    """

    @staticmethod
    def execute[
        target: StaticString, dtype: DType
    ](
        x: OutputTensor[dtype=DType.float32, rank=3, ...],
        tokens: InputTensor[dtype=DType.int32, rank=2, ...],
        positions: InputTensor[dtype=DType.int32, rank=1, ...],
        embeddings: InputTensor[dtype=dtype, rank=2, ...],
        encodings: InputTensor[dtype=DType.float32, rank=2, ...],
        ctx: DeviceContext,
    ) raises:
        embed[target, dtype](
            ints(tokens),
            ints(positions),
            numbers(embeddings),
            floats(encodings),
            floats(encodings),
            floats(x),
            tokens.dim_size(0) * tokens.dim_size(1),
            positions.dim_size(0),
            x.dim_size(2),
            ctx,
        )


@extensibility.register("whisper.device.embed_int8")
struct EmbedInt8:
    """As `whisper.device.embed`, of embeddings [vocabulary, width] int8 with scale [vocabulary]."""

    @staticmethod
    def execute[
        target: StaticString
    ](
        x: OutputTensor[dtype=DType.float32, rank=3, ...],
        tokens: InputTensor[dtype=DType.int32, rank=2, ...],
        positions: InputTensor[dtype=DType.int32, rank=1, ...],
        embeddings: InputTensor[dtype=DType.int8, rank=2, ...],
        scale: InputTensor[dtype=DType.float32, rank=1, ...],
        encodings: InputTensor[dtype=DType.float32, rank=2, ...],
        ctx: DeviceContext,
    ) raises:
        embed[target, DType.int8](
            ints(tokens),
            ints(positions),
            numbers(embeddings),
            floats(scale),
            floats(encodings),
            floats(x),
            tokens.dim_size(0) * tokens.dim_size(1),
            positions.dim_size(0),
            x.dim_size(2),
            ctx,
        )


@always_inline
def unfold_block[
    source: DType, result: DType
](
    place: Int,
    x: Numbers[source],
    y: Numbers[result],
    frames: Int,
    channels: Int,
    states: Int,
    stride: Int,
    frame_step: Int,
    channel_step: Int,
):
    """The three frames around one output of a convolution, [3, channels]; zeros outside."""
    var item = place // states
    var first = place % states * stride - 1
    for thread in threads(3 * channels):
        var frame = first + thread // channels
        var value = Scalar[source](0)
        if 0 <= frame < frames:
            value = x[
                unsafe_offset=item * frames * channels
                + frame * frame_step
                + thread % channels * channel_step
            ]
        y[unsafe_offset=place * 3 * channels + thread] = value.cast[result]()


def unfold_kernel[
    source: DType, result: DType
](
    x: Numbers[source],
    y: Numbers[result],
    frames: Int64,
    channels: Int64,
    states: Int64,
    stride: Int64,
    frame_step: Int64,
    channel_step: Int64,
):
    """One block of the grid."""
    unfold_block[source, result](
        Int(block_idx.x),
        x,
        y,
        Int(frames),
        Int(channels),
        Int(states),
        Int(stride),
        Int(frame_step),
        Int(channel_step),
    )


@extensibility.register("whisper.device.unfold")
struct Unfold:
    """The inputs of a convolution of width 3 side by side, so that it is a product of matrices.

    x [batch, frames, channels], or [batch, channels, frames] where `channels_first`;
    y [batch, states, 3 * channels], of the frames `stride * state - 1` and following.
    """

    @staticmethod
    def execute[
        target: StaticString, source: DType, result: DType, stride: Int, channels_first: Bool
    ](
        y: OutputTensor[dtype=result, rank=3, ...],
        x: InputTensor[dtype=source, rank=3, ...],
        ctx: DeviceContext,
    ) raises:
        comptime frame_axis = 2 if channels_first else 1
        comptime channel_axis = 1 if channels_first else 2
        var frames = x.dim_size(frame_axis)
        var channels = x.dim_size(channel_axis)
        var states = y.dim_size(1)
        var count = y.dim_size(0) * states
        var frame_step = 1 if channels_first else channels
        var channel_step = frames if channels_first else 1
        if count == 0:
            return
        comptime if is_cpu[target]():
            var x_at = numbers(x)
            var y_at = numbers(y)

            def block(index: Int) {imm}:
                unfold_block[source, result](
                    index,
                    x_at,
                    y_at,
                    frames,
                    channels,
                    states,
                    stride,
                    frame_step,
                    channel_step,
                )

            blocks_on_cpu(count, block)
        else:
            ctx.enqueue_function[unfold_kernel[source, result]](
                numbers(x),
                numbers(y),
                Int64(frames),
                Int64(channels),
                Int64(states),
                Int64(stride),
                Int64(frame_step),
                Int64(channel_step),
                grid_dim=count,
                block_dim=THREADS,
            )
