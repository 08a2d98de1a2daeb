"""What the machine can do, measured beside what is compared with it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from max.driver import CPU
from max.dtype import DType
from max.graph import DeviceRef, Module, TensorType

from benchmarks.machine import cores
from benchmarks.timing import times
from whisper_max_backend.engine.compile.artifacts import compiled
from whisper_max_backend.engine.compile.session import Session
from whisper_max_backend.engine.graphs.ops import Kernels, new_graph

_SIDE = 1536
_READ_BYTES = 1 << 28
_TILE_ROUNDS = 1 << 20
_TILE_OPERATIONS = 2 * 16 * 16 * 32
"""Of a product of two tiles of bfloat16."""


def multiply_limit() -> float:
    """FLOP/s of NumPy's float32 matrix product, on all cores."""
    a, b = (np.random.default_rng(i).random((_SIDE, _SIDE), np.float32) for i in range(2))
    return 2 * _SIDE**3 / shortest(lambda: a @ b)


def tile_limit() -> float:
    """FLOP/s in bfloat16 of the tile units of all cores (AMX), where nothing has to be read."""
    session = Session([CPU()])

    def build() -> Module:
        module, number = Module(), TensorType(DType.int32, [1], DeviceRef.CPU())
        with new_graph("tile_rate", [number, number], module) as graph:
            values = {"count": graph.inputs[0].tensor}
            parameters = {"storage": DType.bfloat16}
            kernels = Kernels(graph, DeviceRef.CPU())
            graph.output(*kernels.call("tile_rate", values, [number], parameters))
        return module

    artifact = compiled(name="tile-rate", build=build, key={}, session=session, about_seconds=5)
    model = session.init_all(artifact)["tile_rate"]
    count, threads = np.array([_TILE_ROUNDS], np.int32), np.array([cores()], np.int32)
    operations = 4 * _TILE_ROUNDS * cores() * _TILE_OPERATIONS
    return operations / shortest(lambda: model.execute(count, threads))


def read_limit() -> float:
    """Bytes/s at which all cores together read an array that no cache holds."""
    parts = np.array_split(np.ones(_READ_BYTES // 4, np.float32), cores())
    with ThreadPoolExecutor(len(parts)) as pool:
        return _READ_BYTES / shortest(lambda: list(pool.map(np.max, parts)))


def shortest(call: Callable[[], Any]) -> float:
    """Seconds of the fastest of a few calls."""
    return min(times(call, rounds=7))
