"""MAX's own thread in the background, which must not interrupt the kernels.

With the first execution MAX starts a thread that looks ten thousand times a second whether there
is something for it to do. The kernels use every core and wait for each other many times a step, so
each look at normal priority holds all of them up: a step takes a fifth longer. Where only an idle
core is given to it, the thread still looks often enough. The lowest priority alone is not enough
for a process that has a low one itself, as one of Ray's or one that was started with `nice`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from .unpatched_threads import thread_ids

_TASKS = Path("/proc/self/task")
_LOWEST = 19


@contextlib.contextmanager
def background_thread_yields() -> Iterator[None]:
    """Lower the priority of what MAX starts within, on Linux; elsewhere nothing is done.

    Python's threads, and those that MAX names, which run the kernels, stay as they are.
    """
    before = _threads()
    yield
    for thread in _threads() - before - thread_ids():
        # A thread may be gone already, or a container may forbid it.
        with contextlib.suppress(OSError):
            if (_TASKS / str(thread) / "comm").read_text() == Path("/proc/self/comm").read_text():
                os.setpriority(os.PRIO_PROCESS, thread, _LOWEST)
                os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))


def _threads() -> set[int]:
    if not _TASKS.is_dir():
        return set()
    return {int(task.name) for task in _TASKS.iterdir()}
