"""Steps are made ahead on a device only where it goes on as the search would."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from max.driver import CPU, Buffer
from max.dtype import DType

from whisper_max_backend.engine.checkpoint.dimensions import PUBLISHED
from whisper_max_backend.engine.gpu.graphs.signatures import Signatures
from whisper_max_backend.engine.gpu.steps_ahead import StepsAhead

D = PUBLISHED["tiny.en"]


class Device:
    """A graph `advance` that does as a test says with its inputs, by name."""

    def __init__(self, advance: Callable[[dict[str, np.ndarray]], None]) -> None:
        self._advance = advance
        self.signature = Signatures(D, DType.float32, DType.float32).advance

    def execute(self, *inputs: Buffer) -> list[Buffer]:
        arrays = [one.to_numpy() for one in inputs]
        self._advance(dict(zip(self.signature.names, arrays, strict=True)))
        return []


def steps_ahead(advance: Callable[[dict[str, np.ndarray]], None]) -> StepsAhead:
    graph: Any = Device(advance)
    return StepsAhead(graph, graph.signature, CPU(), D)


def rightly(inputs: dict[str, np.ndarray]) -> None:
    """What the small case has to become."""
    n = D.n_vocab
    inputs["note"][:] = [*inputs["candidates"].ravel(), 5, 1, n - 1, 1]
    inputs["tokens"][:] = [[5, n - 1]]
    inputs["positions"][:] = 2
    inputs["slot_table"][:, :3] = [[8, 1, 0], [8, 1, 1]]
    inputs["scores"][:] = [-3, -2]
    inputs["ranges"][:] = [[n - 2, n - 1, 0, 0], [n - 2, n, 0, 0]]
    inputs["checks"][:] = [1, 0]
    inputs["last_timestamps"][:] = [[n - 2, 0], [n - 1, 1]]


def test_a_device_that_goes_on_as_the_search(caplog: pytest.LogCaptureFixture) -> None:
    assert steps_ahead(rightly).work()
    assert not caplog.records


@pytest.mark.parametrize(
    "wrong",
    ["note", "tokens", "positions", "slot_table", "scores", "ranges", "checks", "last_timestamps"],
)
def test_a_device_that_goes_on_otherwise(wrong: str, caplog: pytest.LogCaptureFixture) -> None:
    def advance(inputs: dict[str, np.ndarray]) -> None:
        rightly(inputs)
        inputs[wrong].reshape(-1)[0] += 1

    assert not steps_ahead(advance).work()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "makes no steps ahead (it goes on otherwise than the search)" in record.getMessage()


def test_a_device_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    def advance(inputs: dict[str, np.ndarray]) -> None:
        raise RuntimeError("no such kernel")

    assert not steps_ahead(advance).work()
    (record,) = caplog.records
    assert "makes no steps ahead (no such kernel)" in record.getMessage()
