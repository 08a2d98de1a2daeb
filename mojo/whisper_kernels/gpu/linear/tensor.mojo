"""Linear layers for few rows on the tensor cores of NVIDIA's GPUs, in the half types.

The arithmetic would be little for other units, too, but here a thread needs so few instructions
that it can ask for all of its weights before it uses the first. The warps of a block share out the
depth. A product takes 16 columns (the instruction's rows) and up to 8 rows (its columns), and 16
inputs; which 16 does not matter as long as both sides take the same, so each thread takes
neighbouring ones. Source: PTX ISA, fragments of mma.m16n8k16.

Where the inputs are to be normalised first, every block does so itself, while its weights are on
their way: that costs less than a kernel of its own.
"""

from max.gpu import barrier, block_idx, thread_idx
from max.gpu.compute.mma import mma
from max.gpu.primitives import warp
from std.math import ceildiv, sqrt

from ...common.views import Floats, Numbers
from .few import finished, piece
from ..block import fetch, shared

comptime WARPS = 8
comptime THREADS = 32 * WARPS
comptime COLUMNS = 16
comptime ROWS = 8
comptime TOTALS = ROWS * COLUMNS
comptime EPSILON = 1e-5
"""Of the normalisation."""
comptime AHEAD = 5
"""Pieces of a column that a thread asks for at once: those of a block's threads are 1280 inputs."""


def tensor_kernel[
    dtype: DType,
    kept: DType,
    result: DType,
    activate: Bool,
    biased: Bool,
    added: Bool,
    normed: Int = 0,
](
    x: Numbers[dtype],
    stream: Floats,
    gamma: Floats,
    beta: Floats,
    weight: Numbers[kept],
    scale: Floats,
    bias: Floats,
    residual: Floats,
    y: Numbers[result],
    rows: Int64,
    depth: Int64,
    columns: Int64,
):
    """COLUMNS columns of `y = x weight^T` for up to ROWS rows; see `linear`.

    With `normed`, which is the depth, `x` is not read, but is the layer normalisation of `stream`.
    """
    comptime PIECE = piece[kept]()
    comptime CHUNK = 4 * PIECE
    comptime HALVES = PIECE // 8
    comptime PASS = WARPS * CHUNK * AHEAD
    comptime STRIDE = normed + 32  # rows that are read together begin in different banks
    var thread = Int(thread_idx.x)
    var own_warp = thread // 32
    var group = thread % 32 // 4
    var member = thread % 4
    # Blocks that read the same weights are neighbours: one brings them to the cache for all.
    var parts = ceildiv(Int(rows), ROWS)
    var first_column = Int(block_idx.x) // parts * COLUMNS
    var first_row = Int(block_idx.x) % parts * ROWS
    # What is beyond the last row or column repeats it, and is not written.
    var last_column = Int(columns) - 1
    var last_row = Int(rows) - 1
    var upper = weight.unsafe_offset(min(first_column + group, last_column) * Int(depth))
    var lower = weight.unsafe_offset(min(first_column + group + 8, last_column) * Int(depth))
    var own = x.unsafe_offset(min(first_row + group, last_row) * Int(depth))
    var norms = shared[ROWS * STRIDE if normed else 1, dtype]()
    comptime if normed:
        own = norms.unsafe_offset(group * STRIDE)
    var zeros = shared[32]()
    if thread < 32:
        zeros[unsafe_offset=thread] = 0
    var sums = SIMD[DType.float32, 4](0)
    for number in range(ceildiv(Int(depth), PASS)):
        var start = number * PASS + own_warp * CHUNK + member * PIECE
        var uppers = Array[SIMD[kept, PIECE], AHEAD](fill=0)
        var lowers = Array[SIMD[kept, PIECE], AHEAD](fill=0)
        var inputs = Array[SIMD[dtype, 8], AHEAD * HALVES](fill=0)
        comptime for i in range(AHEAD):
            var k = start + i * WARPS * CHUNK
            if k < Int(depth):
                uppers[i] = fetch[PIECE](upper.unsafe_offset(k))
                lowers[i] = fetch[PIECE](lower.unsafe_offset(k))
                comptime if not normed:
                    comptime for h in range(HALVES):
                        inputs[i * HALVES + h] = fetch[8](own.unsafe_offset(k + 8 * h))
        comptime if normed:
            if number == 0:
                var row = min(first_row + own_warp, last_row)
                normalize[normed](
                    stream.unsafe_offset(row * normed),
                    gamma,
                    beta,
                    norms.unsafe_offset(own_warp * STRIDE),
                    thread % 32,
                )
        # What is loaded after a barrier is needed for the first product: else the compiler asks for
        # each piece of the weights where it is used.
        barrier()
        sums += zeros[unsafe_offset=thread % 32]
        comptime if normed:
            comptime for i in range(AHEAD):
                var k = start + i * WARPS * CHUNK
                if k < Int(depth):
                    comptime for h in range(HALVES):
                        inputs[i * HALVES + h] = fetch[8](own.unsafe_offset(k + 8 * h))
        comptime for i in range(AHEAD):
            comptime for j in range(PIECE // 4):
                var high = uppers[i].slice[4, offset=4 * j]().cast[dtype]()
                var low = lowers[i].slice[4, offset=4 * j]().cast[dtype]()
                var first = high.slice[2, offset=0]().join(low.slice[2, offset=0]())
                var second = high.slice[2, offset=2]().join(low.slice[2, offset=2]())
                var right = inputs[i * HALVES + j // 2].slice[4, offset=4 * (j % 2)]()
                var before = sums
                mma(sums, first.join(second), right, before)
    var totals = shared[WARPS * TOTALS]()
    comptime for i in range(4):
        var row = 2 * member + i % 2
        var column = group + i // 2 * 8
        totals[unsafe_offset=own_warp * TOTALS + row * COLUMNS + column] = sums[i]
    barrier()
    if thread < TOTALS:
        var row = first_row + thread // COLUMNS
        var column = first_column + thread % COLUMNS
        if row < Int(rows) and column < Int(columns):
            var total = Float32(0)
            comptime for i in range(WARPS):
                total += totals[unsafe_offset=i * TOTALS + thread]
            y[unsafe_offset=row * Int(columns) + column] = finished[
                kept, activate, biased, added
            ](total, scale, bias, residual, row * Int(columns) + column, column).cast[result]()


@always_inline
def normalize[
    width: Int, dtype: DType
](x: Floats, gamma: Floats, beta: Floats, y: Numbers[dtype], lane: Int):
    """Layer normalisation of a row by a warp."""
    comptime VECTOR = 4
    comptime count = ceildiv(width, 32 * VECTOR)
    var own = Array[SIMD[DType.float32, VECTOR], count](fill=0)
    var total = Float32(0)
    comptime for i in range(count):
        var k = (i * 32 + lane) * VECTOR
        if k < width:
            own[i] = fetch[VECTOR](x.unsafe_offset(k))
    comptime for i in range(count):
        total += own[i].reduce_add()
    var mean = warp.sum(total) / Float32(width)
    var squares = Float32(0)
    comptime for i in range(count):
        if (i * 32 + lane) * VECTOR < width:
            own[i] -= mean
            squares += (own[i] * own[i]).reduce_add()
    var factor = 1 / sqrt(warp.sum(squares) / Float32(width) + EPSILON)
    comptime for i in range(count):
        var k = (i * 32 + lane) * VECTOR
        if k < width:
            var value = own[i] * factor * fetch[VECTOR](gamma.unsafe_offset(k)) + fetch[VECTOR](
                beta.unsafe_offset(k)
            )
            y.unsafe_offset(k).unsafe_store[alignment=8](value.cast[dtype]())
