"""What every test runs under."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator
from typing import Any

import pytest

# The matrices that tests multiply with NumPy are small: its threads would wait more than compute.
# It reads this when it is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Workers of pytest-xdist share the cores. Both engines take their threads from this, unless a test
# says how many; threads of the reference that have no core of their own wait by computing.
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):
    os.environ.setdefault("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // workers, 1)))

from compat_tests.support import (
    randomness,
    ray_environment,  # noqa: F401  # Ray reads it when it is imported
)

# Plugins that happen to be installed have no say in the tests; those of the tests set this anew.
os.environ["WHISPER_MAX_PLUGINS"] = ""
# Nothing is asked of the Hugging Face hub: the tests stub it.
os.environ["HF_HUB_OFFLINE"] = "1"
# A shell that starts the tests in the background has interrupts ignored, by their processes, too.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    randomness.begin(item.nodeid)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        seed = f"{randomness.VARIABLE}={randomness.SEED} draws them again"
        report.sections.append(("Random inputs", seed))
    return report


@pytest.fixture(params=["windows", "batched"])
def model(request: pytest.FixtureRequest) -> Any:
    """This package's tiny.en in each class that transcribes."""
    from compat_tests.support.models import our_class  # the package under test, late as there

    return our_class("tiny.en", batched=request.param == "batched")
