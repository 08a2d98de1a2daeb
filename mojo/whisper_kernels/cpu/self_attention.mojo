"""The decoder's causal self-attention over a cache that never moves.

Beams share history: row r of a step may continue another row's hypothesis. The
cache of a row stays where it was written; `slot_table[r, j]` names the cache row
that holds position j of row r's history, so that reordering beams rewrites a
small table of integers and no keys or values. Keys that all rows of an item
share are read once.
"""

from std.collections import Array
from std.math import align_up, sqrt
from std.sys import size_of

from ..common.simd import F32, LANES
from ..common.views import FloatView, IntView, View
from .attention import exponentiate
from .prefetch import NEAR, prefetch

comptime PREFETCH_POSITIONS = 8
"""Positions whose keys are on their way: they lie too far apart for the processor to foresee."""
comptime USUAL_HEAD_SIZE = 64
"""The size of a head in all models of the Whisper family, for which loops are unrolled."""


@fieldwise_init
struct Histories[dtype: DType](ImplicitlyCopyable):
    """What the rows of an item have said before, as one head of a layer keeps it."""

    var keys: View[Self.dtype]
    """Of the cache's first row; those of the others lie `slot_size` elements further each."""
    var values: View[Self.dtype]
    var slot_size: Int
    var slot_table: IntView
    """[rows, context]."""
    var positions: IntView
    """[rows], where the first new token of each goes, less `later`."""
    var later: Int
    var rows: Int
    var context: Int
    var state: Int
    """Elements from a position to the next."""

    @always_inline
    def position(self, row: Int) -> Int:
        """Where a row's first new token goes."""
        return Int(self.positions[row]) + self.later

    @always_inline
    def cell(self, row: Int, at: Int) -> Int:
        """Where the key of a position, and its value, lie."""
        var slot = Int(self.slot_table[row * self.context + at])
        return slot * self.slot_size + at * self.state

    def shared(self) -> Int:
        """How many positions, from the first one on, all rows have in common."""
        var count = self.position(0)
        for row in range(1, self.rows):
            var history = self.slot_table.offset(row * self.context)
            count = min(count, self.position(row))
            for at in range(count):
                if history[at] != self.slot_table[at]:
                    count = at
                    break
        return count


def attend_rows[
    dtype: DType, //
](
    qkv: FloatView,
    tokens: Int,
    histories: Histories[dtype],
    head_size: Int,
    scores: FloatView,
    output: FloatView,
):
    """One head of the rows of an item: stores `tokens` new keys and values of each, then attends.

    qkv [rows * tokens, 3 * state] and output [rows * tokens, state], from the head's first column
    on; scores has room for [rows, context], each row in whole vectors.
    """
    if head_size == USUAL_HEAD_SIZE:
        _attend_rows[USUAL_HEAD_SIZE](qkv, tokens, histories, head_size, scores, output)
    else:
        _attend_rows[0](qkv, tokens, histories, head_size, scores, output)


def _attend_rows[
    dtype: DType, //, known: Int
](
    qkv: FloatView,
    tokens: Int,
    histories: Histories[dtype],
    head_size: Int,
    scores: FloatView,
    output: FloatView,
):
    """The same for heads of `known` size, or of any if that is 0."""
    var state = histories.state
    var rows = histories.rows
    var room = align_up(histories.context, LANES)
    for row in range(rows):
        # All of them go where the first one does.
        var place = histories.cell(row, histories.position(row))
        for t in range(tokens):
            var new = qkv.offset((row * tokens + t) * 3 * state)
            var at = place + t * state
            keep(new.offset(state), histories.keys.offset(at), head_size)
            keep(new.offset(2 * state), histories.values.offset(at), head_size)
    var shared = histories.shared()
    for t in range(tokens):
        var first = Queries(qkv.offset(t * 3 * state), 3 * tokens * state, rows)
        for j in range(shared):
            _score[known](first, histories, 0, j, shared - 1, head_size, scores.offset(j), room)
        for row in range(rows):
            var own = scores.offset(row * room)
            var query = Queries(first.row(row), 0, 1)
            var count = histories.position(row) + t + 1
            for j in range(shared, count):
                _score[known](query, histories, row, j, count - 1, head_size, own.offset(j), room)
            for j in range(count, align_up(count, LANES)):
                own[j] = Float32.MIN_FINITE
            var total = exponentiate(own, align_up(count, LANES))
            _add_values[known](
                own,
                count,
                1 / total,
                histories,
                row,
                head_size,
                output.offset((row * tokens + t) * state),
            )


@fieldwise_init
struct Queries(ImplicitlyCopyable):
    """Queries of some rows."""

    var data: FloatView
    var stride: Int
    var count: Int

    @always_inline
    def row(self, index: Int) -> FloatView:
        """One of them."""
        return self.data.offset(index * self.stride)


@always_inline
def _score[
    dtype: DType, //, known: Int
](
    queries: Queries,
    histories: Histories[dtype],
    row: Int,
    at: Int,
    last: Int,
    head_size: Int,
    scores: FloatView,
    room: Int,
):
    """Scores of a position of a row's history for some queries, `room` apart."""
    var place = histories.cell(row, at)
    var key = histories.keys.offset(place)
    var soon = histories.keys.offset(histories.cell(row, min(at + PREFETCH_POSITIONS, last)))
    ask_for[known](histories.values.offset(place), head_size)
    ask_for[known](soon, head_size)
    var scale = 1 / sqrt(Float32(head_size))
    for i in range(queries.count):
        scores[i * room] = scale * dot[known](queries.row(i), key, head_size)


@always_inline
def _add_values[
    dtype: DType, //, known: Int
](
    weights: FloatView,
    count: Int,
    factor: Float32,
    histories: Histories[dtype],
    row: Int,
    head_size: Int,
    y: FloatView,
):
    """`y = factor * sum(weights[j] * value of position j)`."""
    comptime if known > 0:
        comptime vectors = known // LANES
        var sums = Array[SIMD[F32, LANES], vectors](fill=SIMD[F32, LANES](0))
        for j in range(count):
            var value = histories.values.offset(histories.cell(row, j))
            var weight = SIMD[F32, LANES](weights[j])
            comptime for k in range(vectors):
                sums[k] = value.load[LANES](k * LANES).cast[F32]().fma(weight, sums[k])
        comptime for k in range(vectors):
            y.store(k * LANES, factor * sums[k])
    else:
        for k in range(head_size):
            y[k] = 0
        for j in range(count):
            var value = histories.values.offset(histories.cell(row, j))
            for k in range(head_size):
                y[k] += factor * weights[j] * value[k].cast[F32]()


@always_inline
def dot[dtype: DType, //, known: Int](a: FloatView, b: View[dtype], count: Int) -> Float32:
    """The inner product of two rows."""
    var sums = SIMD[F32, LANES](0)
    comptime if known > 0:
        comptime for k in range(0, known, LANES):
            var x = a.load[LANES](k)
            sums = x.fma(b.load[LANES](k).cast[F32](), sums)
        return sums.reduce_add()
    var whole = count // LANES * LANES
    for k in range(0, whole, LANES):
        sums = a.load[LANES](k).fma(b.load[LANES](k).cast[F32](), sums)
    var total = sums.reduce_add()
    for k in range(whole, count):
        total += a[k] * b[k].cast[F32]()
    return total


@always_inline
def keep[dtype: DType, //](x: FloatView, y: View[dtype], count: Int):
    """`y = x`, in the type of the cache."""
    var whole = count // LANES * LANES
    for k in range(0, whole, LANES):
        y.store(k, x.load[LANES](k).cast[dtype]())
    for k in range(whole, count):
        y[k] = x[k].cast[dtype]()


@always_inline
def ask_for[dtype: DType, //, known: Int](x: View[dtype], count: Int):
    """Has a row brought near."""
    comptime line = 64 // size_of[Scalar[dtype]]()
    comptime if known > 0:
        comptime for k in range(0, known, line):
            prefetch[NEAR](x.offset(k))
    else:
        for k in range(0, count, line):
            prefetch[NEAR](x.offset(k))
