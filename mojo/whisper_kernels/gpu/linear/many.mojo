"""Linear layers for many rows on the tensor cores of NVIDIA's GPUs, in the half types.

A block makes TILE by TILE results; each of its four warps a quarter of them, in registers. Pieces
of both factors, DEPTH deep, are on their way to shared memory while the ones before them are
multiplied. What a product's 16 inputs are is told in `tensor.mojo`: here, too, a thread
takes neighbouring ones, which lie so that all banks of the shared memory are busy.
"""

from max.gpu import barrier, block_idx, thread_idx
from max.gpu.compute.mma import mma
from std.math import ceildiv
from std.memory import unsafe_stack_allocation
from std.sys import inlined_assembly

from ...common.views import Floats, Numbers
from .few import finished
from ..block import fetch

comptime THREADS = 128
comptime TILE = 128
comptime QUARTER = TILE // 2
"""Rows and columns of a warp."""
comptime DEPTH = 32
comptime STAGES = 3
"""Pieces that are in shared memory, or on their way."""
comptime PIECE = 8
"""Numbers that are copied at once: 16 bytes."""
comptime PIECES = DEPTH // PIECE
comptime HIGH = QUARTER // 16
"""Products of a warp, one below the other."""
comptime WIDE = QUARTER // 8
"""And side by side."""


def many_kernel[
    dtype: DType, result: DType, activate: Bool, biased: Bool, added: Bool
](
    x: Numbers[dtype],
    weight: Numbers[dtype],
    bias: Floats,
    residual: Floats,
    y: Numbers[result],
    rows: Int64,
    depth: Int64,
    columns: Int64,
):
    """TILE rows and columns of `y = x weight^T`; see `linear`."""
    comptime FACTOR = TILE * DEPTH
    var tiles = unsafe_stack_allocation[
        STAGES * 2 * FACTOR, Scalar[dtype], alignment=16, address_space=AddressSpace.SHARED
    ]()
    var place = UInt32(Int(tiles))
    var shared_tiles = tiles.unsafe_address_space_cast[
        AddressSpace.GENERIC
    ]().unsafe_origin_cast[MutUntrackedOrigin]()
    var thread = Int(thread_idx.x)
    var warp = thread // 32
    var group = thread % 32 // 4
    var member = thread % 4
    var first_row = Int(block_idx.y) * TILE
    var first_column = Int(block_idx.x) * TILE
    var last_row = Int(rows) - 1
    var last_column = Int(columns) - 1
    var steps = ceildiv(Int(depth), DEPTH)

    @always_inline
    def ask(step: Int) {imm}:
        """For the pieces of both factors of a step; zeros beyond the depth."""
        var stage = step % STAGES
        var k = step * DEPTH + thread % PIECES * PIECE
        var bytes = Int32(16) if k < Int(depth) else Int32(0)
        var own_k = min(k, Int(depth) - PIECE)
        comptime for i in range(TILE * PIECES // THREADS):
            var line = (i * THREADS + thread) // PIECES
            var cell = UInt32((line * DEPTH + thread % PIECES * PIECE) * 2)
            var target = place + UInt32(stage * 2 * FACTOR * 2) + cell
            # What is beyond the last row or column repeats it, and is not written.
            var row = min(first_row + line, last_row)
            var column = min(first_column + line, last_column)
            copy_ahead(target, x.unsafe_offset(row * Int(depth) + own_k), bytes)
            copy_ahead(
                target + UInt32(FACTOR * 2),
                weight.unsafe_offset(column * Int(depth) + own_k),
                bytes,
            )
        inlined_assembly[
            "cp.async.commit_group;", NoneType, constraints="~{memory}", has_side_effect=True
        ]()

    var sums = Array[SIMD[DType.float32, 4], HIGH * WIDE](fill=0)
    comptime for i in range(STAGES - 1):
        ask(i)
    var own_row = warp // 2 * QUARTER + group
    var own_column = warp % 2 * QUARTER + group
    for step in range(steps):
        inlined_assembly[
            "cp.async.wait_group 1;", NoneType, constraints="~{memory}", has_side_effect=True
        ]()
        barrier()
        ask(step + STAGES - 1)
        var left = shared_tiles.unsafe_offset(step % STAGES * 2 * FACTOR)
        var right = left.unsafe_offset(FACTOR)
        var lefts = Array[SIMD[dtype, PIECE], 2 * HIGH](fill=0)
        var rights = Array[SIMD[dtype, PIECE], WIDE](fill=0)
        comptime for i in range(2 * HIGH):
            lefts[i] = fetch[PIECE](
                left.unsafe_offset((own_row + 8 * i) * DEPTH + member * PIECE)
            )
        comptime for j in range(WIDE):
            rights[j] = fetch[PIECE](
                right.unsafe_offset((own_column + 8 * j) * DEPTH + member * PIECE)
            )
        comptime for half in range(2):
            comptime for i in range(HIGH):
                var high = lefts[2 * i].slice[4, offset=4 * half]()
                var low = lefts[2 * i + 1].slice[4, offset=4 * half]()
                var first = high.slice[2, offset=0]().join(low.slice[2, offset=0]())
                var second = high.slice[2, offset=2]().join(low.slice[2, offset=2]())
                comptime for j in range(WIDE):
                    var before = sums[i * WIDE + j]
                    mma(
                        sums[i * WIDE + j],
                        first.join(second),
                        rights[j].slice[4, offset=4 * half](),
                        before,
                    )
    comptime for i in range(HIGH):
        comptime for j in range(WIDE):
            comptime for part in range(4):
                var row = first_row + own_row + 16 * i + part // 2 * 8
                var column = first_column + warp % 2 * QUARTER + 8 * j + 2 * member + part % 2
                if row <= last_row and column <= last_column:
                    var cell = row * Int(columns) + column
                    y[unsafe_offset=cell] = finished[dtype, activate, biased, added](
                        sums[i * WIDE + j][part], bias, bias, residual, cell, column
                    ).cast[result]()


@always_inline
def copy_ahead[dtype: DType](target: UInt32, source: Numbers[dtype], bytes: Int32):
    """Asks for 16 bytes in shared memory: so many of the source's, then zeros."""
    inlined_assembly[
        "cp.async.cg.shared.global [$0], [$1], 16, $2;",
        NoneType,
        constraints="r,l,r,~{memory}",
        has_side_effect=True,
    ](target, source, bytes)
