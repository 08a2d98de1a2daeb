"""Work shared among a limited number of threads.

All models of a process share one pool of threads, whose size is fixed when the
first session opens; how many of them a model may use is an input of its graphs.
"""

from std.atomic import Atomic
from std.ffi import external_call
from std.sys import llvm_intrinsic
from std.sys.info import CompilationTarget

from max.algorithm import sync_parallelize

from ..common.views import IntView, View
from .amx.tiles import configure_tiles, release_tiles

comptime Counters = View[DType.int64]
comptime LINE_COUNTERS = 8
"""Counters of a cache line: those that different threads change lie apart."""
comptime PATIENCE = 2000
"""Looks at a counter before the thread offers its core to others."""


def parallel[Task: def(Int) -> None](threads: Int, count: Int, task: Task):
    """Runs `task(0) ... task(count - 1)` on at most `threads` threads.

    Threads take the next task when they are done with one, so that tasks of
    unequal length, or a thread that the system has taken away, hold nobody up.
    """
    var next = Atomic[Int64](0)

    def take_tasks(_thread: Int) {mut next, imm}:
        while True:
            var i = Int(next.fetch_add(1))
            if i >= count:
                return
            task(i)

    together(min(threads, count), take_tasks)


struct Phases:
    """The counters of a sequence of phases that several threads go through together."""

    var counters: Counters

    def __init__(out self, count: Int):
        """For at most `count` phases."""
        self.counters = View[DType.int64].allocate(2 * LINE_COUNTERS * count)
        for i in range(2 * LINE_COUNTERS * count):
            self.counters[i] = 0

    def __deinit__(deinit self):
        self.counters.free()


struct Worker:
    """One thread on its way through the phases.

    Waking threads costs several microseconds, passing from phase to phase a fraction of one. A
    phase is over when all its tasks are done, whoever did them: a thread that comes late finds
    nothing left to do and nobody waits for it. Once the host has asked to stop, tasks are left out.
    """

    var counters: Counters
    var stop: Optional[IntView]

    def __init__(out self, phases: Counters, stop: Optional[IntView] = None):
        self.counters = phases
        self.stop = stop

    def run[Task: def(Int) -> None](mut self, count: Int, task: Task):
        """The next phase, the same for all threads: `task(0) ... task(count - 1)`, then waits."""
        var own = self.counters.slice(0, 2 * LINE_COUNTERS)
        var taken = own.data.unsafe_bitcast[Atomic[Int64]]()
        var done = own.offset(LINE_COUNTERS).data.unsafe_bitcast[Atomic[Int64]]()
        self.counters = self.counters.offset(2 * LINE_COUNTERS)
        while True:
            var i = Int(taken[unsafe_offset=0].fetch_add(1))
            if i >= count:
                break
            if not (self.stop and stopped(self.stop.value())):
                task(i)
            _ = done[unsafe_offset=0].fetch_add(1)
        var looks = 0
        while Int(done[unsafe_offset=0].load()) < count:
            looks += 1
            if looks > PATIENCE:
                _ = external_call["sched_yield", Int32]()
            else:
                comptime if CompilationTarget.is_x86():
                    llvm_intrinsic["llvm.x86.sse2.pause", NoneType]()


@always_inline
def stopped(stop: IntView) -> Bool:
    """Whether the host has set `stop [1]`, which it may do while a kernel runs."""
    return Int(stop.data.unsafe_bitcast[Atomic[Int32]]()[unsafe_offset=0].load()) != 0


def together[Body: def(Int) -> None](threads: Int, body: Body):
    """Runs `body` on so many threads at once; they share work by the phases of a `Worker`."""

    def prepared(thread: Int) {imm}:
        configure_tiles()
        body(thread)
        release_tiles()

    if threads <= 1:
        prepared(0)
    else:
        sync_parallelize(prepared, threads)
