"""Linear layers for few rows on the tensor cores of NVIDIA's GPUs, in the half types.

The arithmetic would be little for other units, too, but here a thread needs so few instructions
that it can ask for all of its weights before it uses the first. The warps of a block share out the
depth. A product takes 16 columns (the instruction's rows) and up to 8 rows (its columns), and 16
inputs; which 16 does not matter as long as both sides take the same, so each thread takes
neighbouring ones. Source: PTX ISA, fragments of mma.m16n8k16.

Where the inputs are to be normalised first, every block does so itself, while its weights are on
their way: that costs less than a kernel of its own.
"""

from max.gpu import barrier, thread_idx
from max.gpu.compute.mma import mma
from max.gpu.primitives import warp
from std.math import ceildiv, sqrt
from std.memory import unsafe_stack_allocation
from std.sys import inlined_assembly

from ...common.views import FloatView, View
from ..thread_block import load, shared
from ..launch import ALONE, EARLY_READER, Kernel, wait_for_kernel_before
from ..norm import EPSILON
from .epilogue import Epilogue
from .few_rows_simt import inputs_per_load
from .many_rows_mma import copy_ahead


@fieldwise_init
struct TensorCoresKernel[
    dtype: DType,
    storage: DType,
    result: DType,
    activate: Bool,
    biased: Bool,
    added: Bool,
    normed: Int = 0,
    groups: Int = 1,
    start: Int = ALONE,
    resident: Int = 2,
](Kernel):
    """`columns_per_block` columns of `y = x weight^T` for up to `rows_per_block` rows.

    These are `groups` of eight, as many as a product takes; all use the weights while they are in
    registers. With `normed`, which is the depth, `x` is not read, but is the layer normalisation of
    `stream`; there is one group then. A kernel that is an `EARLY_READER` reads weights while the
    one before it still works. Of the blocks, `resident` share a multiprocessor and its registers.
    """

    comptime warps = 8
    comptime threads = 32 * Self.warps
    comptime columns_per_block = 16
    comptime rows_per_block = 8 * Self.groups
    comptime loads_ahead = 5
    """Vectors of a column that a thread asks for at once: those of a block's threads are 1280
    inputs."""

    var x: View[Self.dtype]
    var stream: FloatView
    var gamma: FloatView
    var beta: FloatView
    var weight: View[Self.storage]
    var epilogue: Epilogue[Self.storage, Self.result, Self.activate, Self.biased, Self.added]
    var rows: Int
    var depth: Int

    @always_inline
    def __call__(self, block: Int):
        comptime WARPS = Self.warps
        comptime AHEAD = Self.loads_ahead
        comptime VECTOR = inputs_per_load[Self.storage]()
        comptime CHUNK = 4 * VECTOR
        comptime HALVES = VECTOR // 8
        comptime PASS = WARPS * CHUNK * AHEAD
        comptime STRIDE = Self.normed + 32  # rows that are read together begin in different banks
        comptime COLUMNS = Self.columns_per_block
        comptime TOTALS = Self.rows_per_block * COLUMNS
        var thread = Int(thread_idx.x)
        var own_warp = thread // 32
        var group = thread % 32 // 4
        var member = thread % 4
        # Blocks that read the same weights are neighbours: one brings them to the cache for all.
        var parts = ceildiv(self.rows, Self.rows_per_block)
        var first_column = block // parts * COLUMNS
        var first_row = block % parts * Self.rows_per_block
        # What is beyond the last row or column repeats it, and is not written.
        var last_column = self.epilogue.columns - 1
        var last_row = self.rows - 1
        var upper = self.weight.slice(
            min(first_column + group, last_column) * self.depth, self.depth
        )
        var lower = self.weight.slice(
            min(first_column + group + 8, last_column) * self.depth, self.depth
        )
        var own = Array[View[Self.dtype], Self.groups](fill=self.x)
        comptime for g in range(Self.groups):
            own[g] = self.x.offset(min(first_row + 8 * g + group, last_row) * self.depth)
        var norms = shared[Self.rows_per_block * STRIDE if Self.normed else 1, Self.dtype]()
        comptime if Self.normed:
            own[0] = norms.offset(group * STRIDE)
        comptime SCALES = 2 * Self.normed if Self.normed else 1
        var room = unsafe_stack_allocation[
            SCALES, Float32, alignment=16, address_space=AddressSpace.SHARED
        ]()
        var scales = View(
            room.unsafe_address_space_cast[AddressSpace.GENERIC]().unsafe_origin_cast[
                MutUntrackedOrigin
            ](),
            SCALES,
        )
        var zeros = shared[32]()
        if thread < 32:
            zeros[thread] = 0
        var sums = Array[SIMD[DType.float32, 4], Self.groups](fill=0)
        for number in range(ceildiv(self.depth, PASS)):
            var start = number * PASS + own_warp * CHUNK + member * VECTOR
            var uppers = Array[SIMD[Self.storage, VECTOR], AHEAD](fill=0)
            var lowers = Array[SIMD[Self.storage, VECTOR], AHEAD](fill=0)
            var inputs = Array[SIMD[Self.dtype, 8], AHEAD * HALVES](fill=0)
            comptime for i in range(AHEAD):
                var k = start + i * WARPS * CHUNK
                if k < self.depth:
                    uppers[i] = load[VECTOR](upper, k)
                    lowers[i] = load[VECTOR](lower, k)
            comptime if Self.start == EARLY_READER:
                if number == 0:
                    wait_for_kernel_before()
            comptime if not Self.normed and Self.groups == 1:
                comptime for i in range(AHEAD):
                    var k = start + i * WARPS * CHUNK
                    if k < self.depth:
                        comptime for h in range(HALVES):
                            inputs[i * HALVES + h] = load[8](own[0], k + 8 * h)
            comptime if Self.normed:
                if number == 0:
                    var row = min(first_row + own_warp, last_row)
                    normalize[Self.normed, Self.threads, Self.resident == 2](
                        self.stream.slice(row * Self.normed, Self.normed),
                        self.gamma,
                        self.beta,
                        UInt32(Int(room)),
                        scales,
                        norms.offset(own_warp * STRIDE),
                        thread,
                    )
            # What is loaded after a barrier is needed for the first product: else the compiler asks
            # for each vector of the weights where it is used.
            barrier()
            comptime for g in range(Self.groups):
                sums[g] += zeros[thread % 32]
            comptime if Self.normed:
                comptime for i in range(AHEAD):
                    var k = start + i * WARPS * CHUNK
                    if k < self.depth:
                        comptime for h in range(HALVES):
                            inputs[i * HALVES + h] = load[8](own[0], k + 8 * h)
            comptime for i in range(AHEAD):
                # Those of one group are on their way already.
                var given = Array[SIMD[Self.dtype, 8], Self.groups * HALVES](fill=0)
                var k = start + i * WARPS * CHUNK
                comptime for g in range(Self.groups):
                    comptime for h in range(HALVES):
                        comptime if Self.groups == 1:
                            given[h] = inputs[i * HALVES + h]
                        else:
                            if k < self.depth:
                                given[g * HALVES + h] = load[8](own[g], k + 8 * h)
                comptime for j in range(VECTOR // 4):
                    var high = uppers[i].slice[4, offset=4 * j]().cast[Self.dtype]()
                    var low = lowers[i].slice[4, offset=4 * j]().cast[Self.dtype]()
                    var first = high.slice[2, offset=0]().join(low.slice[2, offset=0]())
                    var second = high.slice[2, offset=2]().join(low.slice[2, offset=2]())
                    comptime for g in range(Self.groups):
                        var right = given[g * HALVES + j // 2].slice[4, offset=4 * (j % 2)]()
                        var before = sums[g]
                        mma(sums[g], first.join(second), right, before)
        var totals = shared[WARPS * TOTALS]()
        comptime for g in range(Self.groups):
            comptime for i in range(4):
                var row = 8 * g + 2 * member + i % 2
                var column = group + i // 2 * 8
                totals[own_warp * TOTALS + row * COLUMNS + column] = sums[g][i]
        barrier()
        for place in range(thread, TOTALS, Self.threads):
            var row = first_row + place // COLUMNS
            var column = first_column + place % COLUMNS
            if row <= last_row and column <= last_column:
                var total = Float32(0)
                comptime for i in range(WARPS):
                    total += totals[i * TOTALS + place]
                self.epilogue.store(total, row, column)


@always_inline
def normalize[
    width: Int, threads: Int, kept: Bool, dtype: DType
](
    x: FloatView,
    gamma: FloatView,
    beta: FloatView,
    address: UInt32,
    scales: FloatView,
    y: View[dtype],
    thread: Int,
):
    """Layer normalisation of a row by each warp of a block, all of whose threads come here.

    The block copies gamma and beta to `scales`, which is shared memory at `address`, while the rows
    are on their way: else each warp would load both by itself, and only when it needs them. A row is
    `kept` in registers, or else loaded three times, of which the L1 cache answers two.
    """
    comptime VECTOR = 4
    comptime V = SIMD[DType.float32, VECTOR]
    comptime count = ceildiv(width, 32 * VECTOR)
    comptime brought = ceildiv(width, threads * VECTOR)
    var lane = thread % 32
    var own = Array[V, count if kept else 1](fill=0)
    comptime if kept:
        comptime for i in range(count):
            var k = (i * 32 + lane) * VECTOR
            if k < width:
                own[i] = load[VECTOR](x, k)
    comptime for i in range(brought):
        var k = (i * threads + thread) * VECTOR
        if k < width:
            copy_ahead(address + UInt32(4 * k), gamma.offset(k).data, 16)
            copy_ahead(address + UInt32(4 * (width + k)), beta.offset(k).data, 16)

    @always_inline
    def numbers[i: Int](k: Int) {imm} -> V:
        comptime if kept:
            return own[i]
        else:
            return load[VECTOR](x, k)

    var total = Float32(0)
    comptime for i in range(count):
        var k = (i * 32 + lane) * VECTOR
        if k < width:
            total += numbers[i](k).reduce_add()
    var mean = warp.sum(total) / Float32(width)
    var squares = Float32(0)
    comptime for i in range(count):
        var k = (i * 32 + lane) * VECTOR
        if k < width:
            var difference = numbers[i](k) - mean
            squares += (difference * difference).reduce_add()
    var factor = 1 / sqrt(warp.sum(squares) / Float32(width) + EPSILON)
    inlined_assembly[
        "cp.async.wait_all;", NoneType, constraints="~{memory}", has_side_effect=True
    ]()
    barrier()
    comptime for i in range(count):
        var k = (i * 32 + lane) * VECTOR
        if k < width:
            var gain = load[VECTOR](scales, k)
            var value = (numbers[i](k) - mean) * factor * gain + load[VECTOR](scales, width + k)
            y.store[alignment=8](k, value.cast[dtype]())
