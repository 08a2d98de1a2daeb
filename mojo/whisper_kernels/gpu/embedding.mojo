"""Embeddings of tokens and of their positions."""

import extensibility
from extensibility import InputTensor, OutputTensor
from max.gpu.host import DeviceContext

from ..common.views import FloatView, IntView, View
from .thread_block import thread_share
from .launch import Kernel, launch


@fieldwise_init
struct EmbedKernel[dtype: DType](Kernel):
    """The embedding of one token, a row's tokens being `length`, plus that of its position.

    Embeddings of int8 are multiplied by `scale [vocabulary]`, which is not read for other types.
    """

    comptime threads = 256
    var tokens: IntView
    var positions: IntView
    var embeddings: View[Self.dtype]
    var scale: FloatView
    var encodings: FloatView
    var x: FloatView
    var length: Int
    var width: Int

    @always_inline
    def __call__(self, block: Int):
        var token = Int(self.tokens[block])
        var position = Int(self.positions[block // self.length]) + block % self.length
        for k in thread_share[Self.threads](self.width):
            var value = self.embeddings[token * self.width + k].cast[DType.float32]()
            comptime if Self.dtype == DType.int8:
                value *= self.scale[token]
            self.x[block * self.width + k] = value + self.encodings[position * self.width + k]


@extensibility.register("whisper.gpu.embed")
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
        embed[target](
            View(tokens),
            View(positions),
            View(embeddings),
            View(encodings),
            View(encodings),
            View(x),
            x.dim_size(2),
            ctx,
        )


@extensibility.register("whisper.gpu.embed_int8")
struct EmbedInt8:
    """As `whisper.gpu.embed`, of embeddings [vocabulary, width] int8 with scale [vocabulary]."""

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
        embed[target](
            View(tokens),
            View(positions),
            View(embeddings),
            View(scale),
            View(encodings),
            View(x),
            x.dim_size(2),
            ctx,
        )


def embed[
    dtype: DType, //, target: StaticString
](
    tokens: IntView,
    positions: IntView,
    embeddings: View[dtype],
    scale: FloatView,
    encodings: FloatView,
    x: FloatView,
    width: Int,
    ctx: DeviceContext,
) raises:
    """A block for each token."""
    var length = tokens.count // max(1, positions.count)
    var kernel = EmbedKernel(tokens, positions, embeddings, scale, encodings, x, length, width)
    launch[target](kernel, tokens.count, ctx)
