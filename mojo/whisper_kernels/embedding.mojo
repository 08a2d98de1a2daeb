"""Token and position embeddings, and the selection of rows."""

import extensibility
from extensibility import InputTensor, OutputTensor
from max.gpu.host import DeviceContext

from .gemm import PANEL
from .tensors import floats, ints


@extensibility.register("whisper.embed")
struct Embed:
    """`x = E[token] + P[position]`.

    tokens [items, queries] int32, the new tokens of every beam, beam by beam;
    positions [rows] int32 with rows = items * beams, where each beam's first token stands;
    embeddings packed [panels, state, PANEL] (the projection's own panels);
    encodings [context, state]; x [items, queries, state].
    """

    @staticmethod
    def execute[
        target: StaticString
    ](
        x: OutputTensor[dtype=DType.float32, rank=3, ...],
        tokens: InputTensor[dtype=DType.int32, rank=2, ...],
        positions: InputTensor[dtype=DType.int32, rank=1, ...],
        embeddings: InputTensor[dtype=DType.float32, rank=3, ...],
        encodings: InputTensor[dtype=DType.float32, rank=2, ...],
        ctx: DeviceContext,
    ) raises:
        var count = tokens.dim_size(0) * tokens.dim_size(1)
        var each = count // positions.dim_size(0)
        var state = x.dim_size(2)
        for i in range(count):
            var token = Int(ints(tokens)[unsafe_offset=i])
            var position = Int(ints(positions)[unsafe_offset=i // each]) + i % each
            var column = floats(embeddings).unsafe_offset(
                token // PANEL * state * PANEL + token % PANEL
            )
            var encoding = floats(encodings).unsafe_offset(position * state)
            var row = floats(x).unsafe_offset(i * state)
            for k in range(state):
                row[unsafe_offset=k] = (
                    column[unsafe_offset=k * PANEL] + encoding[unsafe_offset=k]
                )


@extensibility.register("whisper.take_token")
struct TakeToken:
    """One token's row of every item: y[b, 0] = x[b, index]; index [1] int32."""

    @staticmethod
    def execute[
        target: StaticString
    ](
        y: OutputTensor[dtype=DType.float32, rank=3, ...],
        x: InputTensor[dtype=DType.float32, rank=3, ...],
        index: InputTensor[dtype=DType.int32, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        var tokens = x.dim_size(1)
        var state = x.dim_size(2)
        var token = Int(ints(index)[unsafe_offset=0])
        for item in range(x.dim_size(0)):
            var row = floats(x).unsafe_offset((item * tokens + token) * state)
            var taken = floats(y).unsafe_offset(item * state)
            for k in range(state):
                taken[unsafe_offset=k] = row[unsafe_offset=k]
