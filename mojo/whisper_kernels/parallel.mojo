"""Work shared among a limited number of threads.

All models of a process share one pool of threads, whose size is fixed when the
first session opens; how many of them a model may use is an input of its graphs.
"""

from std.atomic import Atomic

from max.algorithm import sync_parallelize


def parallel[Task: def(Int) -> None](threads: Int, count: Int, task: Task):
    """Runs `task(0) ... task(count - 1)` on at most `threads` threads.

    Threads take the next task when they are done with one, so that tasks of
    unequal length, or a thread that the system has taken away, hold nobody up.
    """
    var workers = min(threads, count)
    if workers <= 1:
        for i in range(count):
            task(i)
        return
    var next = Atomic[Int64](0)

    def worker(_index: Int) {mut next, imm}:
        while True:
            var i = Int(next.fetch_add(1))
            if i >= count:
                return
            task(i)

    sync_parallelize(worker, workers)
