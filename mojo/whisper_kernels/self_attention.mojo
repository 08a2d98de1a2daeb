"""The decoder's causal self-attention over a cache that never moves.

Beams share history: row r of a step may continue another row's hypothesis. The
cache of a row stays where it was written; `origins[r, j]` names the cache row
that holds position j of row r's history, so that reordering beams rewrites a
small table of integers and no keys or values.
"""

from std.math import exp, sqrt
from std.memory.alloc import unsafe_alloc

import extensibility
from extensibility import InputTensor, OutputTensor
from extensibility import _MutableInputTensor as MutableInputTensor
from max.gpu.host import DeviceContext

from .attention import exponentiate
from .gemm import F32, LANES
from .parallel import parallel
from .tensors import Floats, Ints, first, floats, ints


@always_inline
def dot(a: Floats, b: Floats, count: Int) -> Float32:
    """The inner product of two rows."""
    var whole = count // LANES * LANES
    var sums = SIMD[F32, LANES](0)
    for k in range(0, whole, LANES):
        sums = (
            a.unsafe_offset(k)
            .unsafe_load[width=LANES]()
            .fma(b.unsafe_offset(k).unsafe_load[width=LANES](), sums)
        )
    var total = sums.reduce_add()
    for k in range(whole, count):
        total += a[unsafe_offset=k] * b[unsafe_offset=k]
    return total


@always_inline
def add_scaled(y: Floats, x: Floats, scale: Float32, count: Int):
    """`y += scale * x`."""
    var whole = count // LANES * LANES
    for k in range(0, whole, LANES):
        var sums = y.unsafe_offset(k).unsafe_load[width=LANES]()
        var row = x.unsafe_offset(k).unsafe_load[width=LANES]()
        y.unsafe_offset(k).unsafe_store(row.fma(SIMD[F32, LANES](scale), sums))
    for k in range(whole, count):
        y[unsafe_offset=k] += scale * x[unsafe_offset=k]


def attend_row(
    qkv: Floats,
    tokens: Int,
    keys: Floats,
    values: Floats,
    origins: Ints,
    position: Int,
    context: Int,
    state: Int,
    head: Int,
    head_size: Int,
    output: Floats,
):
    """One head of one row: stores `tokens` new keys and values from `position` on, then attends.

    qkv [tokens, 3 * state]; keys and values [rows, context, state]; origins [context];
    output [tokens, state].
    """
    var column = head * head_size
    var slot = Int(origins[unsafe_offset=position])
    for t in range(tokens):
        var row = qkv.unsafe_offset(t * 3 * state + column)
        var cell = (slot * context + position + t) * state + column
        for k in range(head_size):
            keys[unsafe_offset=cell + k] = row[unsafe_offset=state + k]
            values[unsafe_offset=cell + k] = row[unsafe_offset=2 * state + k]
    var scores = unsafe_alloc[Float32](position + tokens)
    var scale = 1 / sqrt(Float32(head_size))
    for t in range(tokens):
        var query = qkv.unsafe_offset(t * 3 * state + column)
        var count = position + t + 1
        for j in range(count):
            var cell = (Int(origins[unsafe_offset=j]) * context + j) * state + column
            scores[unsafe_offset=j] = scale * dot(query, keys.unsafe_offset(cell), head_size)
        var total = exponentiate(scores, count)
        var y = output.unsafe_offset(t * state + column)
        for k in range(head_size):
            y[unsafe_offset=k] = 0
        for j in range(count):
            var cell = (Int(origins[unsafe_offset=j]) * context + j) * state + column
            add_scaled(y, values.unsafe_offset(cell), scores[unsafe_offset=j] / total, head_size)
    scores.unsafe_free()


@extensibility.register("whisper.self_attention")
struct SelfAttention:
    """Causal attention of new tokens, whose keys and values join the cache.

    qkv [items, queries, 3 * state]: `queries` are the tokens of every beam, beam by beam;
    cache [layers, 2, slots, context, state]; origins [rows, context] int32 with
    rows = items * beams; positions [rows] int32, where each row's first new token goes; layer [1];
    y [items, queries, state].
    """

    @staticmethod
    def execute[
        target: StaticString, heads: Int
    ](
        y: OutputTensor[dtype=DType.float32, rank=3, ...],
        qkv: InputTensor[dtype=DType.float32, rank=3, ...],
        cache: MutableInputTensor[dtype=DType.float32, rank=5, ...],
        origins: InputTensor[dtype=DType.int32, rank=2, ...],
        positions: InputTensor[dtype=DType.int32, rank=1, ...],
        layer: InputTensor[dtype=DType.int32, rank=1, ...],
        threads: InputTensor[dtype=DType.int32, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        var index = first(layer)
        var rows = origins.dim_size(0)
        var tokens = qkv.dim_size(0) * qkv.dim_size(1) // rows
        attend_rows(
            floats(qkv),
            rows,
            tokens,
            floats(cache),
            index,
            cache.dim_size(2),
            cache.dim_size(3),
            ints(origins),
            ints(positions),
            heads,
            y.dim_size(2),
            floats(y),
            first(threads),
        )


def attend_rows(
    qkv: Floats,
    rows: Int,
    tokens: Int,
    cache: Floats,
    layer: Int,
    slots: Int,
    context: Int,
    origins: Ints,
    positions: Ints,
    heads: Int,
    state: Int,
    output: Floats,
    threads: Int,
):
    """`attend_row` for every row and head, heads in parallel."""
    var plane = slots * context * state
    var keys = cache.unsafe_offset(2 * layer * plane)

    def task(head: Int) {imm}:
        for row in range(rows):
            attend_row(
                qkv.unsafe_offset(row * tokens * 3 * state),
                tokens,
                keys,
                keys.unsafe_offset(plane),
                origins.unsafe_offset(row * context),
                Int(positions[unsafe_offset=row]),
                context,
                state,
                head,
                state // heads,
                output.unsafe_offset(row * tokens * state),
            )

    parallel(threads, heads, task)
