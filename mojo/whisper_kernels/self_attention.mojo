"""The decoder's causal self-attention over a cache that never moves.

Beams share history: row r of a step may continue another row's hypothesis. The
cache of a row stays where it was written; `origins[r, j]` names the cache row
that holds position j of row r's history, so that reordering beams rewrites a
small table of integers and no keys or values.
"""

from std.math import sqrt
from std.sys.intrinsics import prefetch

from .attention import exponentiate
from .matrix import F32, LANES
from .prefetching import NEAR
from .tensors import Floats, Ints

comptime AHEAD = 8
"""Positions whose keys are on their way: they lie too far apart for the processor to foresee."""


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


@always_inline
def copy(x: Floats, y: Floats, count: Int):
    """`y = x`."""
    var whole = count // LANES * LANES
    for k in range(0, whole, LANES):
        y.unsafe_offset(k).unsafe_store(x.unsafe_offset(k).unsafe_load[width=LANES]())
    for k in range(whole, count):
        y[unsafe_offset=k] = x[unsafe_offset=k]


@always_inline
def ask_for(x: Floats, count: Int):
    """Has a row brought near."""
    for k in range(0, count, 16):
        prefetch[NEAR](x.unsafe_offset(k))


def attend_row(
    qkv: Floats,
    tokens: Int,
    keys: Floats,
    values: Floats,
    slot: Int,
    origins: Ints,
    position: Int,
    state: Int,
    head: Int,
    head_size: Int,
    scores: Floats,
    output: Floats,
):
    """One head of one row: stores `tokens` new keys and values from `position` on, then attends.

    qkv [tokens, 3 * state]; keys and values [context, state] of the cache's first row, those of
    the others each `slot` elements further; origins [context]; output [tokens, state]; scores has
    room for [context].
    """
    var column = head * head_size

    @always_inline
    def cell(at: Int) {imm} -> Int:
        """Where the key of a position, and its value, lie."""
        return Int(origins[unsafe_offset=at]) * slot + at * state + column

    for t in range(tokens):
        var row = qkv.unsafe_offset(t * 3 * state + column)
        # All of them go where the first one does.
        var place = cell(position) + t * state
        copy(row.unsafe_offset(state), keys.unsafe_offset(place), head_size)
        copy(row.unsafe_offset(2 * state), values.unsafe_offset(place), head_size)
    var scale = 1 / sqrt(Float32(head_size))
    for t in range(tokens):
        var query = qkv.unsafe_offset(t * 3 * state + column)
        var last = position + t
        for j in range(last + 1):
            var place = cell(j)
            ask_for(values.unsafe_offset(place), head_size)
            ask_for(keys.unsafe_offset(cell(min(j + AHEAD, last))), head_size)
            scores[unsafe_offset=j] = scale * dot(query, keys.unsafe_offset(place), head_size)
        var total = exponentiate(scores, last + 1)
        var y = output.unsafe_offset(t * state + column)
        for k in range(head_size):
            y[unsafe_offset=k] = 0
        for j in range(last + 1):
            var weight = scores[unsafe_offset=j] / total
            add_scaled(y, values.unsafe_offset(cell(j)), weight, head_size)
