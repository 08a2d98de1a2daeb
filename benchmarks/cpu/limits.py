"""What the machine can do, measured beside what is compared with it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import run
from typing import Any

import numpy as np
from mojo.run import subprocess_run_mojo

from benchmarks.machine import cores
from benchmarks.timing import times
from whisper_max_backend.engine.compile.artifacts import kernel_sources
from whisper_max_backend.engine.compile.cpu_target import TILES

_SIDE = 1536
_READ_BYTES = 1 << 28
_TILE_RATE = Path(__file__).with_name("tile_rate.mojo")


def multiply_limit() -> float:
    """FLOP/s of NumPy's float32 matrix product, on all cores."""
    a, b = (np.random.default_rng(i).random((_SIDE, _SIDE), np.float32) for i in range(2))
    return 2 * _SIDE**3 / shortest(lambda: a @ b)


def tile_limit() -> float:
    """FLOP/s in bfloat16 of AMX on all cores, where nothing has to be read."""
    with tempfile.TemporaryDirectory() as folder:
        program = build_tile_rate(Path(folder))
        result = run([program, str(cores())], check=True, capture_output=True, text=True)
    return float(result.stdout)


def build_tile_rate(folder: Path) -> Path:
    """The program that measures it.

    Raises:
        RuntimeError: It does not compile.
    """
    program = folder / _TILE_RATE.stem
    kernels = kernel_sources().parent
    command = ["build", "--target-cpu", TILES, "-I", kernels, _TILE_RATE, "-o", program]
    result = subprocess_run_mojo([str(part) for part in command], capture_output=True, check=False)
    if result.returncode != 0:
        raise RuntimeError(f"{_TILE_RATE} does not compile:\n{result.stderr.decode()}")
    return program


def read_limit() -> float:
    """Bytes/s at which all cores together read an array that no cache holds."""
    parts = np.array_split(np.ones(_READ_BYTES // 4, np.float32), cores())
    with ThreadPoolExecutor(len(parts)) as pool:
        return _READ_BYTES / shortest(lambda: list(pool.map(np.max, parts)))


def shortest(call: Callable[[], Any]) -> float:
    """Seconds of the fastest of a few calls."""
    return min(times(call, rounds=7))
