"""Names and indices of devices, their memory, and what runs on a GPU, on a machine without one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from max.dtype import DType

from whisper_max_backend.engine import devices
from whisper_max_backend.engine.checkpoint import Dimensions
from whisper_max_backend.engine.device_runtime import memory_needed
from whisper_max_backend.engine.device_weights import weight_bytes
from whisper_max_backend.engine.precision import select

BASE = Dimensions(80, 1500, 512, 8, 6, 51865, 448, 512, 8, 6)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "gpu_count", lambda: 2)


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize("name", ["cuda", "gpu", "GPU", "auto"])
def test_a_gpu_is_found(name: str) -> None:
    assert devices.resolve_device(name) == "cuda"


@pytest.mark.usefixtures("two_gpus")
def test_indices_of_gpus() -> None:
    assert devices.device_indices([1, 0], "cuda") == [1, 0]
    with pytest.raises(RuntimeError, match="index: 2"):
        devices.device_indices([0, 2], "cuda")


def test_no_gpu_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "gpu_count", lambda: 0)
    with pytest.raises(RuntimeError, match="driver"):
        devices.resolve_device("gpu")
    assert devices.resolve_device("auto") == "cpu"


def test_a_driver_that_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(index: int) -> Any:
        raise ValueError("CUDA driver version is insufficient")

    monkeypatch.setattr("max.driver.Accelerator", refuse)
    with pytest.raises(RuntimeError, match=r"GPU 1 .*insufficient.*driver"):
        devices.open_gpu(1)


def test_missing_memory_is_told() -> None:
    device: Any = SimpleNamespace(stats={"free_memory": 100 << 20}, label="gpu", id=3)
    devices.check_memory(100 << 20, device)
    with pytest.raises(RuntimeError, match=r"gpu 3 has 100 MiB .* 28 MiB are missing"):
        devices.check_memory(128 << 20, device)


def test_memory_that_a_model_needs() -> None:
    weights = weight_bytes(BASE, DType.bfloat16)
    assert 140e6 < weights < 155e6  # 72.6 million numbers, vectors in float32
    assert weights < memory_needed(BASE, DType.bfloat16) < 1.6 * weights


@pytest.mark.parametrize(
    ("requested", "running"),
    [
        ("default", "float16"),
        ("auto", "bfloat16"),
        ("float16", "float16"),
        ("bfloat16", "bfloat16"),
        ("float32", "float32"),
        ("int8", "float16"),
        ("int8_float16", "float16"),
        ("int8_bfloat16", "bfloat16"),
        ("int8_float32", "float32"),
    ],
)
def test_what_runs_on_a_gpu(requested: str, running: str) -> None:
    """For a float16 file, which is what faster-whisper's models are."""
    assert select(requested, "float16", "cuda", "cuda").running == running
