"""Token and position embeddings, and the selection of rows."""

import extensibility
from extensibility import InputTensor, OutputTensor
from max.gpu.host import DeviceContext

from .gemm import PANEL
from .parallel import parallel
from .tensors import first, floats, ints, numbers


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
        target: StaticString, dtype: DType
    ](
        x: OutputTensor[dtype=DType.float32, rank=3, ...],
        tokens: InputTensor[dtype=DType.int32, rank=2, ...],
        positions: InputTensor[dtype=DType.int32, rank=1, ...],
        embeddings: InputTensor[dtype=dtype, rank=3, ...],
        encodings: InputTensor[dtype=DType.float32, rank=2, ...],
        threads: InputTensor[dtype=DType.int32, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        var count = tokens.dim_size(0) * tokens.dim_size(1)
        var each = count // positions.dim_size(0)
        var state = x.dim_size(2)
        var ids = ints(tokens)
        var starts = ints(positions)
        var panels = numbers(embeddings)
        var places = floats(encodings)
        var output = floats(x)

        def task(i: Int) {imm}:
            var token = Int(ids[unsafe_offset=i])
            var position = Int(starts[unsafe_offset=i // each]) + i % each
            var column = panels.unsafe_offset(
                token // PANEL * state * PANEL + token % PANEL
            )
            var encoding = places.unsafe_offset(position * state)
            var row = output.unsafe_offset(i * state)
            for k in range(state):
                row[unsafe_offset=k] = (
                    column[unsafe_offset=k * PANEL].cast[DType.float32]()
                    + encoding[unsafe_offset=k]
                )

        parallel(first(threads), count, task)


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
        threads: InputTensor[dtype=DType.int32, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        var tokens = x.dim_size(1)
        var state = x.dim_size(2)
        var token = first(index)
        var source = floats(x)
        var destination = floats(y)

        def task(item: Int) {imm}:
            var row = source.unsafe_offset((item * tokens + token) * state)
            var taken = destination.unsafe_offset(item * state)
            for k in range(state):
                taken[unsafe_offset=k] = row[unsafe_offset=k]

        parallel(first(threads), x.dim_size(0), task)
