"""Linear layers for many rows on the tensor cores of Hopper GPUs, in the half types.

There four warps, a warpgroup, make one product, and read both factors from shared memory. A block is
two warpgroups, one above the other, which share the weights. Slices of both factors, `tile_depth`
deep, are on their way to shared memory while others are multiplied.

A line of a slice takes 128 bytes, all banks of the shared memory. Its eight vectors of 16 bytes are
swizzled: the one at `place` lies at `place ^ line % 8`, so that the same vector of eight lines lies in
eight places. Sources: PTX ISA, "Asynchronous Warpgroup Level Matrix Instructions" and "Strides and
swizzling modes of the shared memory layout".
"""

from max.gpu import barrier, block_idx, thread_idx
from max.gpu.compute.mma import (
    WGMMADescriptor,
    wgmma_async,
    wgmma_commit_group_sync,
    wgmma_fence_aligned,
    wgmma_wait_group_sync,
)
from max.gpu.memory import external_memory
from std.math import ceildiv
from std.sys import inlined_assembly

from ...common.views import View
from ..launch import Kernel
from .epilogue import Epilogue
from .many_rows_mma import copy_ahead

comptime LINE_BYTES = 128
comptime EIGHT_LINES = 8 * LINE_BYTES
"""Bytes of what is swizzled together, which begins at a multiple of as many."""


@fieldwise_init
struct WarpgroupsKernel[
    dtype: DType, result: DType, activate: Bool, biased: Bool, added: Bool, wide: Int
](Kernel):
    """A tile of `y = x weight^T`, in the column `block` and the row `block_idx.y` of the tiles.

    It is `wide` columns wide, a multiple of 8 up to 256. The columns of `y` are an even number.
    """

    comptime threads = 256
    comptime high = 128
    """Rows of a block."""
    comptime warpgroup_rows = 64
    comptime tile_depth = 64
    comptime product_depth = 16
    comptime stages = 4
    """Slices that are in shared memory, or on their way."""
    comptime vector = 8
    """Numbers that are copied at once: 16 bytes."""
    comptime stage_bytes = (Self.high + Self.wide) * LINE_BYTES
    comptime shared_bytes = Self.stages * Self.stage_bytes
    comptime pairs_ahead = 8
    """Pairs of columns whose biases and residuals are asked for at once."""

    var x: View[Self.dtype]
    var weight: View[Self.dtype]
    var epilogue: Epilogue[Self.dtype, Self.result, Self.activate, Self.biased, Self.added]
    var rows: Int
    var depth: Int

    @always_inline
    def __call__(self, block: Int):
        comptime VECTOR = Self.vector
        comptime LINES = Self.threads // VECTOR
        var memory = external_memory[
            Scalar[DType.uint8], address_space=AddressSpace.SHARED, alignment=EIGHT_LINES
        ]()
        var address = UInt32(Int(memory))
        var thread = Int(thread_idx.x)
        var first_row = Int(block_idx.y) * Self.high
        var first_column = block * Self.wide
        var last_row = self.rows - 1
        var last_column = self.epilogue.columns - 1
        var own_line = thread // VECTOR
        var own_vector = thread % VECTOR
        var own_place = UInt32(
            own_line * LINE_BYTES + (own_vector ^ own_line % VECTOR) * 2 * VECTOR
        )

        @always_inline
        def ask(slice: Int) {imm}:
            """For a slice of both factors; zeros beyond the depth."""
            var k = slice * Self.tile_depth + own_vector * VECTOR
            var bytes = Int32(16) if k < self.depth else Int32(0)
            var own_k = min(k, self.depth - VECTOR)
            var target = address + UInt32(slice % Self.stages * Self.stage_bytes) + own_place
            # What is beyond the last row or column repeats it, and is not written.
            comptime for i in range(Self.high // LINES):
                var row = min(first_row + i * LINES + own_line, last_row)
                copy_ahead(
                    target + UInt32(i * LINES * LINE_BYTES),
                    self.x.slice(row * self.depth + own_k, VECTOR).data,
                    bytes,
                )
            comptime for i in range(Self.wide // LINES):
                var column = min(first_column + i * LINES + own_line, last_column)
                copy_ahead(
                    target + UInt32((Self.high + i * LINES) * LINE_BYTES),
                    self.weight.slice(column * self.depth + own_k, VECTOR).data,
                    bytes,
                )
            inlined_assembly[
                "cp.async.commit_group;", NoneType, constraints="~{memory}", has_side_effect=True
            ]()

        comptime AHEAD = Self.stages - 2
        comptime SUMS = Self.warpgroup_rows * Self.wide // 128
        var sums = SIMD[DType.float32, SUMS](0)
        var warpgroup = thread // 128
        var own_rows = UInt32(warpgroup * Self.warpgroup_rows * LINE_BYTES)
        comptime for i in range(AHEAD):
            ask(i)
        for slice in range(ceildiv(self.depth, Self.tile_depth)):
            inlined_assembly[
                "cp.async.wait_group $0;",
                NoneType,
                constraints="n,~{memory}",
                has_side_effect=True,
            ](Int32(AHEAD - 1))
            # Tensor cores read shared memory by a way of their own.
            inlined_assembly[
                "fence.proxy.async.shared::cta;",
                NoneType,
                constraints="~{memory}",
                has_side_effect=True,
            ]()
            barrier()
            var left = address + UInt32(slice % Self.stages * Self.stage_bytes) + own_rows
            var right = left - own_rows + UInt32(Self.high * LINE_BYTES)
            wgmma_fence_aligned()
            comptime for i in range(Self.tile_depth // Self.product_depth):
                comptime start = UInt32(i * Self.product_depth * 2)
                sums = wgmma_async[
                    Self.warpgroup_rows,
                    Self.wide,
                    Self.product_depth,
                    a_type=Self.dtype,
                    b_type=Self.dtype,
                ](
                    swizzled[Self.dtype](left + start),
                    swizzled[Self.dtype](right + start),
                    sums,
                )
            wgmma_commit_group_sync()
            # Its place is that of the slice before the last one, which all warps are done with.
            ask(slice + AHEAD)
            wgmma_wait_group_sync[1]()
        wgmma_wait_group_sync()

        # Of each eight columns a thread has two neighbours, in two rows.
        var own_row = first_row + thread // 32 * 16 + thread % 32 // 4
        var own_column = first_column + 2 * (thread % 4)
        comptime PAIRS = Self.pairs_ahead
        comptime for start in range(0, Self.wide // 8, PAIRS):
            var biases = Array[SIMD[DType.float32, 2], PAIRS](fill=0)
            var residuals = Array[SIMD[DType.float32, 2], 2 * PAIRS](fill=0)
            comptime for i in range(PAIRS):
                var column = own_column + 8 * (start + i)
                if column < last_column:
                    biases[i] = self.epilogue.bias_of[2](column)
                    comptime for half in range(2):
                        if own_row + 8 * half <= last_row:
                            residuals[2 * i + half] = self.epilogue.residual_of[2](
                                own_row + 8 * half, column
                            )
            comptime for i in range(PAIRS):
                var column = own_column + 8 * (start + i)
                comptime for half in range(2):
                    var row = own_row + 8 * half
                    var pair = sums.slice[2, offset=4 * (start + i) + 2 * half]()
                    if row <= last_row and column < last_column:
                        self.epilogue.store[2](
                            pair, row, column, biases[i], residuals[2 * i + half]
                        )


@always_inline
def swizzled[dtype: DType](address: UInt32) -> WGMMADescriptor[dtype]:
    """Describes lines of 128 bytes in shared memory, swizzled, from an address within the first on.

    Source: PTX ISA, "Matrix descriptor".
    """
    var start = Int64((address & 0x3FFFF) >> 4)
    return WGMMADescriptor[dtype](start | 1 << 16 | (EIGHT_LINES >> 4) << 32 | 1 << 62)
