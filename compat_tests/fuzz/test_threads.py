"""A few seconds of what ``python -m compat_tests.fuzz.threads`` does for half an hour."""

from __future__ import annotations

import sys

import pytest

from compat_tests.fuzz.threads import Soak, jobs
from compat_tests.support.models import our_model
from compat_tests.support.randomness import rng

pytestmark = pytest.mark.slow


@pytest.mark.skipif(sys.platform != "linux", reason="the memory is read from /proc")
def test_threads_get_what_they_would_get_alone() -> None:
    seed = int(rng().integers(1 << 30))
    soak = Soak(our_model("tiny.en"), jobs(("command", "silence"), multilingual=False), seed)
    soak.run(threads=16, seconds=5)
    assert not soak.differences, f"seed {seed}: {soak.differences[:3]}"
    assert soak.done["dropped"] > 0
    assert soak.done.total() > 16
