"""A block of threads, written once for GPUs and CPUs.

A kernel is a sequence of phases. In a phase every thread works alone; the next one begins when all
are done. What passes from phase to phase is in memory that the block shares. On a GPU a phase is
the threads' work and a barrier; on a CPU one thread does the work of all, one after another, so
that the same source is tested where there is no GPU. Code between phases is done by every thread
alike.
"""

from std.memory import unsafe_stack_allocation
from std.sys import is_gpu, size_of

from max.gpu import barrier, thread_idx

from ..common.views import FloatView, View


@always_inline
def each_thread[threads: Int, Task: def(Int) -> None](task: Task):
    """A phase: runs `task(thread)` for each thread of the block, and waits for all."""
    comptime if is_gpu():
        task(Int(thread_idx.x))
        barrier()
    else:
        for thread in range(threads):
            task(thread)


@always_inline
def each_element[threads: Int, Task: def(Int) -> None](block: Int, count: Int, task: Task):
    """Runs `task(index)` for the block's share of `count` elements, of which a thread takes one."""
    comptime if is_gpu():
        var index = block * threads + Int(thread_idx.x)
        if index < count:
            task(index)
    else:
        for index in range(block * threads, min(count, (block + 1) * threads)):
            task(index)


@always_inline
def thread_share[threads: Int](count: Int) -> type_of(range(0, 0, 1)):
    """What the calling thread does of `count` independent things; all of them on a CPU."""
    comptime if is_gpu():
        return range(Int(thread_idx.x), count, threads)
    else:
        return range(0, count, 1)


@always_inline
def load[width: Int, dtype: DType](view: View[dtype], index: Int) -> SIMD[dtype, width]:
    """Neighbouring numbers from a multiple of 16 bytes, or of what they take if that is less.

    A GPU that is not told of the alignment reads each of them alone.
    """
    return view.load[width, alignment=min(16, width * size_of[dtype]())](index)


@always_inline
def load_float[
    width: Int, dtype: DType
](view: View[dtype], index: Int) -> SIMD[DType.float32, width]:
    """As `load`, in float32."""
    return load[width](view, index).cast[DType.float32]()


@always_inline
def shared[count: Int, dtype: DType = DType.float32]() -> View[dtype]:
    """Uninitialised memory of the block."""
    comptime if is_gpu():
        return View(
            unsafe_stack_allocation[
                count, Scalar[dtype], alignment=16, address_space=AddressSpace.SHARED
            ]()
            .unsafe_address_space_cast[AddressSpace.GENERIC]()
            .unsafe_origin_cast[MutUntrackedOrigin](),
            count,
        )
    else:
        return View(
            unsafe_stack_allocation[count, Scalar[dtype], alignment=64]().unsafe_origin_cast[
                MutUntrackedOrigin
            ](),
            count,
        )


comptime LAST_THREADS = 16
"""Threads of the second round of a reduction."""


struct Reduction[threads: Int]:
    """Sums and maxima over a block."""

    var parts: FloatView
    var rest: FloatView

    @always_inline
    def __init__(out self):
        self.parts = shared[Self.threads]()
        self.rest = shared[LAST_THREADS]()

    @always_inline
    def maximum[Part: def(Int) -> Float32](self, part: Part) -> Float32:
        """The largest of what the threads give; every thread gets it."""

        def first(thread: Int) {imm}:
            self.parts[thread] = part(thread)

        each_thread[Self.threads](first)

        def second(thread: Int) {imm}:
            if thread < LAST_THREADS:
                var largest = Float32.MIN_FINITE
                comptime for k in range(Self.threads // LAST_THREADS):
                    largest = max(largest, self.parts[k * LAST_THREADS + thread])
                self.rest[thread] = largest

        each_thread[Self.threads](second)
        var largest = Float32.MIN_FINITE
        comptime for i in range(LAST_THREADS):
            largest = max(largest, self.rest[i])
        return largest

    @always_inline
    def sum[Part: def(Int) -> Float32](self, part: Part) -> Float32:
        """The sum of what the threads give; every thread gets it."""

        def first(thread: Int) {imm}:
            self.parts[thread] = part(thread)

        each_thread[Self.threads](first)

        def second(thread: Int) {imm}:
            if thread < LAST_THREADS:
                var total = Float32(0)
                comptime for k in range(Self.threads // LAST_THREADS):
                    total += self.parts[k * LAST_THREADS + thread]
                self.rest[thread] = total

        each_thread[Self.threads](second)
        var total = Float32(0)
        comptime for i in range(LAST_THREADS):
            total += self.rest[i]
        return total
