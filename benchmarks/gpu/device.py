"""The device: what it is, what it can do, how busy it is and how much of its memory is taken."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from max.driver import Buffer, Device
from max.dtype import DType
from max.graph import DeviceRef, Graph, TensorType, ops

from benchmarks.cpu.limits import multiply_limit
from benchmarks.timing import times
from whisper_max_backend.engine.compile.artifacts import ArtifactSpec, compiled
from whisper_max_backend.engine.compile.session import Session
from whisper_max_backend.engine.gpu.weights import on_device

_QUERY = "name,driver_version,memory.total"
_SAMPLE = "utilization.gpu,memory.used"


def describe(device: Device) -> dict[str, Any]:
    """Name, driver and memory."""
    found: dict[str, Any] = {"api": device.api, "label": device.label}
    if device.is_host:
        return found
    found["architecture"] = device.architecture_name
    line = _smi(_QUERY)
    if line:
        name, driver, memory = (part.strip() for part in line.split(","))
        found.update(name=name, driver=driver, memory_mib=int(memory.split()[0]))
    return found


def median_seconds(call: Callable[[], Any], device: Device, rounds: int = 7) -> float:
    """Median time of a call, the device's work included, after one that is not counted."""
    return statistics.median(times(call, rounds, settle=device.synchronize))


def product_artifact(device: Device, dtype: DType, session: Session, side: int) -> ArtifactSpec:
    """A square product of matrices, which the matrix rate is measured with."""

    def build() -> Graph:
        kind = TensorType(dtype, [side, side], DeviceRef.from_device(device))
        with Graph("product", input_types=[kind, kind]) as graph:
            a, b = (value.tensor for value in graph.inputs)
            graph.output(ops.matmul(a, ops.transpose(b, 0, 1)))
        return graph

    return {
        "name": f"product-{device.api}-{dtype.name}",
        "build": build,
        "key": {"side": side, "dtype": dtype.name},
        "session": session,
        "about_seconds": 60,
    }


def matrix_rate(device: Device, dtype: DType, side: int) -> dict[str, float | None]:
    """Operations a second of a square product on random numbers: MAX's, and PyTorch's if there.

    On a CPU, NumPy's: MAX's takes minutes to compile.
    """
    if device.is_host:
        return {"numpy": multiply_limit()}
    session = Session([device])
    artifact = compiled(**product_artifact(device, dtype, session, side))
    (model,) = session.init_all(artifact).values()
    rng = np.random.default_rng()
    a, b = (
        on_device(rng.normal(0, 1, (side, side)).astype(np.float32), dtype, device)
        for _ in range(2)
    )
    ours = 2 * side**3 / median_seconds(lambda: model.execute(a, b), device)
    return {"max": ours, "torch": _torch_rate(side)}


def bandwidth(device: Device, size: int) -> float:
    """Bytes a second, read and written, of a copy within the device."""
    source = Buffer(DType.uint8, (size,), device)
    target = Buffer(DType.uint8, (size,), device)
    return 2 * size / median_seconds(lambda: target.inplace_copy_from(source), device)


def _torch_rate(side: int) -> float | None:
    try:
        import torch
    except ImportError:
        return None
    if not torch.cuda.is_available():
        return None
    a, b = (torch.randn(side, side, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    taken = times(lambda: a @ b, rounds=10, settle=torch.cuda.synchronize)
    return float(2 * side**3 / statistics.median(taken))


class Watch:
    """Utilisation and memory of the first GPU while a block of code runs; None where none tells."""

    def __init__(self) -> None:
        self.samples: list[tuple[float, int]] = []
        self._look = _looker()
        self._stop = threading.Event()

    def __enter__(self) -> Watch:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def utilisation(self) -> float | None:
        """Mean share of the time in which the device had work."""
        return statistics.mean(u for u, _ in self.samples) if self.samples else None

    @property
    def peak_mib(self) -> int | None:
        """Most memory taken on the device, by anyone."""
        return max(m for _, m in self.samples) if self.samples else None

    def _run(self) -> None:
        while not self._stop.wait(0.02):
            sample = self._look()
            if sample is None:
                return
            self.samples.append(sample)


def memory_used() -> int | None:
    """MiB taken on the first GPU, by anyone; None where none tells."""
    sample = _looker()()
    return sample[1] if sample else None


def _looker() -> Callable[[], tuple[float, int] | None]:
    """Tells utilisation and MiB taken: nvidia-ml-py, else nvidia-smi, else nobody."""
    try:
        import pynvml

        pynvml.nvmlInit()
        gpu = pynvml.nvmlDeviceGetHandleByIndex(0)
    except Exception:  # neither the package nor a driver has to be there
        return _look_by_smi

    def look() -> tuple[float, int]:
        used = pynvml.nvmlDeviceGetMemoryInfo(gpu).used >> 20
        return pynvml.nvmlDeviceGetUtilizationRates(gpu).gpu / 100, used

    return look


def _look_by_smi() -> tuple[float, int] | None:
    line = _smi(_SAMPLE)
    if line is None:
        return None
    used, memory = line.split(",")
    return int(used.split()[0]) / 100, int(memory.split()[0])


def _smi(query: str) -> str | None:
    """What nvidia-smi says of the first GPU; None where there is no such program."""
    if shutil.which("nvidia-smi") is None:
        return None
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader", "--id=0"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stdout.strip() or None if result.returncode == 0 else None
