"""Three first starts killed while they compile, as `compat_tests.fuzz.starts` does it in bulk."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from compat_tests.fuzz.starts import ALL, Start, kill_and_start
from compat_tests.support.randomness import rng

pytestmark = pytest.mark.slow

COMPILE = """
from compat_tests.support.double_graph import double_graph, run
from max.driver import CPU
from whisper_max_backend.engine.compile import artifacts
from whisper_max_backend.engine.compile.session import Session

session = Session([CPU()])
artifacts.kernels_path()
print(*run(session, artifacts.compiled("double", double_graph, key={}, session=session)))
"""


def test_next_start_after_a_kill_works_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    start = Start([sys.executable, "-c", COMPILE], "2.0 4.0 6.0", tmp_path)
    result = kill_and_start(start, rng().uniform(0.5, 5))
    assert result["killed"], result
    assert not result["faults"], result
    assert len(list(start.cache.iterdir())) == 2
    start.forget(ALL)
    assert start.unfinished() == []


def test_faults_are_found(tmp_path: Path) -> None:
    left = "import os; open(os.environ['TMPDIR'] + '/left', 'w'); print('other'); exit(%d)"
    for status, words in ((0, "prints 'other"), (3, "ends with 3")):
        start = Start([sys.executable, "-c", left % status], "text", tmp_path)
        faults = start.faults()
        assert len(faults) == 2
        assert words in faults[0]
        assert "left is left" in faults[1]
