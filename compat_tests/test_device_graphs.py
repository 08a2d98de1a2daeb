"""The graphs of a GPU, executed on the CPU: the tests of the engine, and a real model."""

from __future__ import annotations

import pytest

from compat_tests.device_engine import DeviceWhisper
from compat_tests.test_engine_parity import (  # noqa: F401  # run here with these engines
    Engines,
    make_engines,
    test_align,
    test_align_nothing,
    test_batch_with_timestamps,
    test_encode,
    test_encoded_once_or_twice,
    test_generate,
    test_previous_text,
    test_unload_and_load,
    test_whole_length,
)

# Each compiles anew: two that differ in heads, their size, and vocabulary.
ARCHITECTURES = ("one-head", "small-heads")


@pytest.fixture(scope="module", params=ARCHITECTURES)
def engines(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Engines:
    return make_engines(request.param, tmp_path_factory, DeviceWhisper)
