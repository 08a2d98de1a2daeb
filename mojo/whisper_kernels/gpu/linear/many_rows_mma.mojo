"""Linear layers for many rows on the tensor cores of NVIDIA's GPUs, in the half types.

A block makes a tile of results; each of its four warps a quarter of them, in registers. Slices of
both factors, `tile_depth` deep, are on their way to shared memory while the ones before them are
multiplied. What a product's 16 inputs are is told in `few_rows_mma.mojo`: here, too, a thread
takes neighbouring ones, which lie so that all banks of the shared memory are busy.
"""

from max.gpu import barrier, block_idx, thread_idx
from max.gpu.compute.mma import mma
from std.math import ceildiv
from std.memory import unsafe_stack_allocation
from std.sys import inlined_assembly

from ...common.views import Address, View
from ..thread_block import load
from ..launch import Kernel
from .epilogue import Epilogue


@fieldwise_init
struct ManyRowsKernel[dtype: DType, result: DType, activate: Bool, biased: Bool, added: Bool](
    Kernel
):
    """A tile of `y = x weight^T`, in the column `block` and the row `block_idx.y` of the tiles."""

    comptime threads = 128
    comptime tile = 128
    """Rows and columns of a block."""
    comptime warp_tile = Self.tile // 2
    """Rows and columns of a warp."""
    comptime tile_depth = 32
    comptime stages = 3
    """Slices that are in shared memory, or on their way."""
    comptime vector = 8
    """Numbers that are copied at once: 16 bytes."""
    comptime vectors = Self.tile_depth // Self.vector
    comptime products_high = Self.warp_tile // 16
    """Products of a warp, one below the other."""
    comptime products_wide = Self.warp_tile // 8
    """And side by side."""

    var x: View[Self.dtype]
    var weight: View[Self.dtype]
    var epilogue: Epilogue[Self.dtype, Self.result, Self.activate, Self.biased, Self.added]
    var rows: Int
    var depth: Int

    @always_inline
    def __call__(self, block: Int):
        comptime TILE = Self.tile
        comptime DEPTH = Self.tile_depth
        comptime VECTOR = Self.vector
        comptime HIGH = Self.products_high
        comptime WIDE = Self.products_wide
        comptime FACTOR = TILE * DEPTH
        comptime CELLS = Self.stages * 2 * FACTOR
        var tiles = unsafe_stack_allocation[
            CELLS, Scalar[Self.dtype], alignment=16, address_space=AddressSpace.SHARED
        ]()
        var address = UInt32(Int(tiles))
        var shared_tiles = View(
            tiles.unsafe_address_space_cast[AddressSpace.GENERIC]().unsafe_origin_cast[
                MutUntrackedOrigin
            ](),
            CELLS,
        )
        var thread = Int(thread_idx.x)
        var warp = thread // 32
        var group = thread % 32 // 4
        var member = thread % 4
        var first_row = Int(block_idx.y) * TILE
        var first_column = block * TILE
        var last_row = self.rows - 1
        var last_column = self.epilogue.columns - 1
        var slices = ceildiv(self.depth, DEPTH)

        @always_inline
        def ask(slice: Int) {imm}:
            """For a slice of both factors; zeros beyond the depth."""
            var stage = slice % Self.stages
            var k = slice * DEPTH + thread % Self.vectors * VECTOR
            var bytes = Int32(16) if k < self.depth else Int32(0)
            var own_k = min(k, self.depth - VECTOR)
            comptime for i in range(TILE * Self.vectors // Self.threads):
                var line = (i * Self.threads + thread) // Self.vectors
                var cell = UInt32((line * DEPTH + thread % Self.vectors * VECTOR) * 2)
                var target = address + UInt32(stage * 2 * FACTOR * 2) + cell
                # What is beyond the last row or column repeats it, and is not written.
                var row = min(first_row + line, last_row)
                var column = min(first_column + line, last_column)
                copy_ahead(target, self.x.slice(row * self.depth + own_k, VECTOR).data, bytes)
                copy_ahead(
                    target + UInt32(FACTOR * 2),
                    self.weight.slice(column * self.depth + own_k, VECTOR).data,
                    bytes,
                )
            inlined_assembly[
                "cp.async.commit_group;", NoneType, constraints="~{memory}", has_side_effect=True
            ]()

        var sums = Array[SIMD[DType.float32, 4], HIGH * WIDE](fill=0)
        comptime for i in range(Self.stages - 1):
            ask(i)
        var own_row = warp // 2 * Self.warp_tile + group
        var own_column = warp % 2 * Self.warp_tile + group
        for slice in range(slices):
            inlined_assembly[
                "cp.async.wait_group 1;", NoneType, constraints="~{memory}", has_side_effect=True
            ]()
            barrier()
            ask(slice + Self.stages - 1)
            var left = shared_tiles.offset(slice % Self.stages * 2 * FACTOR)
            var right = left.offset(FACTOR)
            var lefts = Array[SIMD[Self.dtype, VECTOR], 2 * HIGH](fill=0)
            var rights = Array[SIMD[Self.dtype, VECTOR], WIDE](fill=0)
            comptime for i in range(2 * HIGH):
                lefts[i] = load[VECTOR](left, (own_row + 8 * i) * DEPTH + member * VECTOR)
            comptime for j in range(WIDE):
                rights[j] = load[VECTOR](right, (own_column + 8 * j) * DEPTH + member * VECTOR)
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
        var left_column = first_column + warp % 2 * Self.warp_tile + 2 * member
        var biases = Array[Float32, 2 * WIDE](fill=0)
        comptime for k in range(2 * WIDE):
            biases[k] = self.epilogue.bias_of[1](min(left_column + k // 2 * 8 + k % 2, last_column))
        comptime for i in range(2 * HIGH):
            var row = first_row + own_row + 8 * i
            var residuals = Array[Float32, 2 * WIDE](fill=0)
            comptime for k in range(2 * WIDE):
                var column = left_column + k // 2 * 8 + k % 2
                if row <= last_row and column <= last_column:
                    residuals[k] = self.epilogue.residual_of[1](row, column)
            comptime for k in range(2 * WIDE):
                var column = left_column + k // 2 * 8 + k % 2
                var sum = sums[i // 2 * WIDE + k // 2][i % 2 * 2 + k % 2]
                if row <= last_row and column <= last_column:
                    self.epilogue.store[1](sum, row, column, biases[k], residuals[k])


@always_inline
def copy_ahead[dtype: DType](target: UInt32, source: Address[dtype], bytes: Int32):
    """Asks for 16 bytes in shared memory: so many of the source's, then zeros."""
    inlined_assembly[
        "cp.async.cg.shared.global [$0], [$1], 16, $2;",
        NoneType,
        constraints="r,l,r,~{memory}",
        has_side_effect=True,
    ](target, source, bytes)
