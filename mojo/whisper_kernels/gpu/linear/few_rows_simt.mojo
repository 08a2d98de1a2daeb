"""Linear layers for few rows: the time is that of reading the weights once.

A warp's worth of threads makes a few columns for up to `rows_per_block` rows; each thread takes
every 32nd vector of the depth, and the sums are added in shared memory. Weights of int8 are widened
in registers, and each column's sum is multiplied by its scale. NVIDIA's GPUs multiply the half
types with their tensor cores instead (`few_rows_mma.mojo`; for many rows `many_rows_mma.mojo`, and on
Hopper `many_rows_wgmma.mojo`).
"""

from std.math import ceildiv, fma

from ...common.views import View
from ..thread_block import each_thread, load, load_float, shared
from ..launch import Kernel
from .epilogue import Epilogue

comptime WARP_SIZE = 32
"""Threads of a warp."""


@always_inline
def inputs_per_load[storage: DType]() -> Int:
    """Neighbouring inputs that a thread takes at once: 16 bytes of int8 or of a half type."""
    return 16 if storage == DType.int8 else 8


@fieldwise_init
struct FewRowsKernel[
    dtype: DType, storage: DType, result: DType, activate: Bool, biased: Bool, added: Bool
](Kernel):
    """`columns_per_block` columns of `y = x weight^T` for up to `rows_per_block` rows."""

    comptime warps = 4
    comptime threads = WARP_SIZE * Self.warps
    comptime columns_per_warp = 2
    comptime columns_per_block = Self.warps * Self.columns_per_warp
    comptime rows_per_block = 8
    """That share one reading of the weights."""
    comptime loads_ahead = 5
    """Vectors of a column that a thread asks for before it uses the first: memory is far away, and
    so many are all of a column of 1280."""
    comptime sums_per_thread = Self.rows_per_block * Self.columns_per_warp
    comptime stride = WARP_SIZE + 1
    """Distance of the sums of a warp's threads, so that they lie in different banks."""

    var x: View[Self.dtype]
    var weight: View[Self.storage]
    var epilogue: Epilogue[Self.storage, Self.result, Self.activate, Self.biased, Self.added]
    var rows: Int
    var depth: Int

    @always_inline
    def __call__(self, block: Int):
        comptime VECTOR = inputs_per_load[Self.storage]()
        comptime AHEAD = Self.loads_ahead
        comptime COLUMNS = Self.columns_per_warp
        comptime SUMS = Self.sums_per_thread
        var columns = self.epilogue.columns
        var parts = ceildiv(columns, Self.columns_per_block)
        var first_column = block % parts * Self.columns_per_block
        var first_row = block // parts * Self.rows_per_block
        var sums = shared[Self.warps * SUMS * Self.stride]()

        def multiply(thread: Int) {imm}:
            var lane = thread % WARP_SIZE
            var column = first_column + thread // WARP_SIZE * COLUMNS
            var totals = Array[Float32, SUMS](fill=0)
            for first in range(lane * VECTOR, self.depth, WARP_SIZE * VECTOR * AHEAD):
                var weights = Array[SIMD[Self.storage, VECTOR], AHEAD * COLUMNS](fill=0)
                comptime for a in range(AHEAD):
                    var k = first + a * WARP_SIZE * VECTOR
                    if k < self.depth:
                        comptime for c in range(COLUMNS):
                            # Columns beyond the last repeat it; they are not written.
                            var place = min(column + c, columns - 1) * self.depth + k
                            weights[a * COLUMNS + c] = load[VECTOR](self.weight, place)
                comptime for a in range(AHEAD):
                    var k = first + a * WARP_SIZE * VECTOR
                    if k < self.depth:
                        comptime for r in range(Self.rows_per_block):
                            # Rows beyond the last repeat it, too: a branch would make each wait.
                            var row = min(first_row + r, self.rows - 1)
                            var values = load_float[VECTOR](self.x, row * self.depth + k)
                            # One instruction for each product; there are SUMS chains of them.
                            comptime for c in range(COLUMNS):
                                var own = weights[a * COLUMNS + c].cast[DType.float32]()
                                comptime for i in range(VECTOR):
                                    totals[r * COLUMNS + c] = fma(
                                        values[i], own[i], totals[r * COLUMNS + c]
                                    )
            comptime for i in range(SUMS):
                sums[(thread // WARP_SIZE * SUMS + i) * Self.stride + lane] = totals[i]

        each_thread[Self.threads](multiply)

        def add(thread: Int) {imm}:
            var lane = thread % WARP_SIZE
            for i in range(lane, SUMS, WARP_SIZE):
                var row = first_row + i // COLUMNS
                var column = first_column + thread // WARP_SIZE * COLUMNS + i % COLUMNS
                if row < self.rows and column < columns:
                    var own = sums.slice((thread // WARP_SIZE * SUMS + i) * Self.stride, WARP_SIZE)
                    var total = Float32(0)
                    for k in range(WARP_SIZE):
                        total += own[k]
                    self.epilogue.store(total, row, column)

        each_thread[Self.threads](add)
