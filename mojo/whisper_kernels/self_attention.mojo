"""The decoder's causal self-attention over a cache that never moves.

Beams share history: row r of a step may continue another row's hypothesis. The
cache of a row stays where it was written; `origins[r, j]` names the cache row
that holds position j of row r's history, so that reordering beams rewrites a
small table of integers and no keys or values.
"""

from std.math import sqrt

from .attention import exponentiate
from .matrix import F32, LANES
from .tensors import Floats, Ints


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
    scores: Floats,
    output: Floats,
):
    """One head of one row: stores `tokens` new keys and values from `position` on, then attends.

    qkv [tokens, 3 * state]; keys and values [rows, context, state]; origins [context];
    output [tokens, state]; scores has room for [context].
    """
    var column = head * head_size
    var slot = Int(origins[unsafe_offset=position])
    for t in range(tokens):
        var row = qkv.unsafe_offset(t * 3 * state + column)
        var cell = (slot * context + position + t) * state + column
        for k in range(head_size):
            keys[unsafe_offset=cell + k] = row[unsafe_offset=state + k]
            values[unsafe_offset=cell + k] = row[unsafe_offset=2 * state + k]
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
