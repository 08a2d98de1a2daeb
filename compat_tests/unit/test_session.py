"""Loading what is compiled, by MAX's core alone or by all of it, and MAX's thread beside it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from max.driver import CPU

from whisper_max_backend.engine.compile import session
from whisper_max_backend.engine.compile.artifacts import compiled
from whisper_max_backend.engine.cpu.model_independent_graphs import common_artifact, common_graphs


def warp(model: Any) -> list[int]:
    """The path through a matrix of one cell, and its length."""
    one = np.ones(1, np.float32)
    path, length = model.execute(
        one.reshape(1, 1, 1), np.array([[0, 1, 1]], np.int32), one, np.ones(1, np.int32)
    )
    return [*path.to_numpy()[0, 0].tolist(), int(length.to_numpy()[0])]


def test_all_of_max_loads_the_same_where_its_core_has_other_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = warp(common_graphs()["dtw"])
    monkeypatch.setattr(session, "_Compiled", None)
    whole = session.Session([CPU()])
    models = whole.init_all(compiled(**common_artifact(whole)))
    assert warp(models["dtw"]) == expected


def test_what_is_compiled_is_run_without_the_graph_builder() -> None:
    common_graphs()  # compiled by now
    script = (
        "import sys\n"
        "from whisper_max_backend.engine.cpu.model_independent_graphs import common_graphs\n"
        "common_graphs()\n"
        "print('max.graph' in sys.modules, 'max.engine' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["False", "False"]


THREADS = """
import os
from pathlib import Path
from whisper_max_backend.engine.cpu.model_independent_graphs import common_graphs
common_graphs()
own = os.getpriority(os.PRIO_PROCESS, os.getpid())
lowered, idle = set(), set()
for task in Path("/proc/self/task").iterdir():
    name = (task / "comm").read_text()
    if os.getpriority(os.PRIO_PROCESS, int(task.name)) == 19 != own:
        lowered.add(name)
    if os.sched_getscheduler(int(task.name)) == os.SCHED_IDLE:
        idle.add(name)
process = {Path("/proc/self/comm").read_text()}
print(lowered == process or own == 19, idle == process)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="threads have priorities of their own on Linux")
def test_the_thread_that_max_starts_gives_way_and_no_other() -> None:
    """In a process of its own: in this one, other tests may have had MAX start it."""
    common_graphs()  # compiled by now
    command = [sys.executable, "-c", THREADS]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["True", "True"]
