"""A block of threads, written once for GPUs and CPUs.

A kernel is a sequence of steps. In a step every thread works alone; the next step begins when all
are done. What passes from step to step is in memory that the block shares. On a GPU a step is the
threads' work and a barrier; on a CPU one thread does the work of all, one after another, so that
the same source is tested where there is no GPU. Code between steps is done by every thread alike.
"""

from std.memory import unsafe_stack_allocation
from std.sys import is_gpu, size_of

from max.algorithm import sync_parallelize
from max.gpu import barrier, thread_idx

from ..common.views import Floats, Numbers


@always_inline
def step[threads: Int, Task: def(Int) -> None](task: Task):
    """Runs `task(thread)` for each thread of the block."""
    comptime if is_gpu():
        task(Int(thread_idx.x))
        barrier()
    else:
        for thread in range(threads):
            task(thread)


@always_inline
def fetch[count: Int, dtype: DType](place: Numbers[dtype]) -> SIMD[dtype, count]:
    """Neighbouring numbers from a multiple of 16 bytes, or of what they take if that is less.

    A GPU that is not told of the alignment reads each of them alone.
    """
    comptime alignment = min(16, count * size_of[dtype]())
    return place.unsafe_load[width=count, alignment=alignment]()


@always_inline
def load[count: Int, dtype: DType](place: Numbers[dtype]) -> SIMD[DType.float32, count]:
    """As `fetch`, in float32."""
    return fetch[count](place).cast[DType.float32]()


@always_inline
def shared[count: Int, dtype: DType = DType.float32]() -> Numbers[dtype]:
    """Uninitialised memory of the block."""
    comptime if is_gpu():
        return (
            unsafe_stack_allocation[
                count, Scalar[dtype], alignment=16, address_space=AddressSpace.SHARED
            ]()
            .unsafe_address_space_cast[AddressSpace.GENERIC]()
            .unsafe_origin_cast[MutUntrackedOrigin]()
        )
    else:
        return unsafe_stack_allocation[count, Scalar[dtype], alignment=64]().unsafe_origin_cast[
            MutUntrackedOrigin
        ]()


comptime FOLDS = 16
"""Threads of the second round of a reduction."""


struct Reduction[threads: Int]:
    """Sums and maxima over a block."""

    var parts: Floats
    var folded: Floats

    @always_inline
    def __init__(out self):
        self.parts = shared[Self.threads]()
        self.folded = shared[FOLDS]()

    @always_inline
    def maximum[Part: def(Int) -> Float32](self, part: Part) -> Float32:
        """The largest of what the threads give; every thread gets it."""

        def first(thread: Int) {imm}:
            self.parts[unsafe_offset=thread] = part(thread)

        step[Self.threads](first)

        def second(thread: Int) {imm}:
            if thread < FOLDS:
                var top = Float32.MIN_FINITE
                comptime for k in range(Self.threads // FOLDS):
                    var i = k * FOLDS + thread
                    top = max(top, self.parts[unsafe_offset=i])
                self.folded[unsafe_offset=thread] = top

        step[Self.threads](second)
        var top = Float32.MIN_FINITE
        comptime for i in range(FOLDS):
            top = max(top, self.folded[unsafe_offset=i])
        return top

    @always_inline
    def sum[Part: def(Int) -> Float32](self, part: Part) -> Float32:
        """The sum of what the threads give; every thread gets it."""

        def first(thread: Int) {imm}:
            self.parts[unsafe_offset=thread] = part(thread)

        step[Self.threads](first)

        def second(thread: Int) {imm}:
            if thread < FOLDS:
                var total = Float32(0)
                comptime for k in range(Self.threads // FOLDS):
                    var i = k * FOLDS + thread
                    total += self.parts[unsafe_offset=i]
                self.folded[unsafe_offset=thread] = total

        step[Self.threads](second)
        var total = Float32(0)
        comptime for i in range(FOLDS):
            total += self.folded[unsafe_offset=i]
        return total


def blocks_on_cpu[Block: def(Int) -> None](count: Int, block: Block):
    """Runs `block(0) ... block(count - 1)`, several at once."""
    if count == 1:
        block(0)
    else:
        sync_parallelize(block, count)
