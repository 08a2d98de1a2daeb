"""Names and indices of devices, their memory, and what runs on a GPU, on a machine without one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from max.dtype import DType

from compat_tests.support.miniature import make_model
from whisper_max_backend.cli import main
from whisper_max_backend.engine.api import devices
from whisper_max_backend.engine.api.compute_types import select
from whisper_max_backend.engine.checkpoint.dimensions import Dimensions
from whisper_max_backend.engine.gpu.model import memory_needed
from whisper_max_backend.engine.gpu.weights import weight_bytes
from whisper_max_backend.engine.whisper import Whisper

BASE = Dimensions(80, 1500, 512, 8, 6, 51865, 448, 512, 8, 6)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "gpu_count", lambda: 2)
    monkeypatch.setattr(devices, "open_gpu", lambda index: SimpleNamespace(id=index))


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
    assert devices.gpu_refusal() == ""


@pytest.fixture
def old_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU is there, and its driver refuses."""

    def refuse(index: int) -> Any:
        raise ValueError("CUDA driver version is insufficient")

    monkeypatch.setattr(devices, "gpu_count", lambda: 1)
    monkeypatch.setattr("max.driver.Accelerator", refuse)


@pytest.mark.usefixtures("old_driver")
def test_a_driver_that_refuses() -> None:
    with pytest.raises(RuntimeError, match=r"GPU 1 .*insufficient.*driver"):
        devices.open_gpu(1)
    assert devices.resolve_device("cuda") == "cuda"  # that it cannot be used is told on loading


@pytest.mark.usefixtures("old_driver")
def test_auto_does_without_a_driver_that_refuses(caplog: pytest.LogCaptureFixture) -> None:
    devices._tell.cache_clear()
    assert [devices.resolve_device("auto") for _ in range(2)] == ["cpu", "cpu"]
    (record,) = caplog.records
    assert "the GPU 0 cannot be used" in record.getMessage()
    assert "insufficient" in record.getMessage()
    assert "the CPU is used instead" in record.getMessage()


def backends() -> tuple[str, dict[str, Any]]:
    """What `whisper-max backends` says, and its account of this engine."""
    text = CliRunner().invoke(main, ["backends"], catch_exceptions=False).stdout
    described = CliRunner().invoke(main, ["backends", "--json"], catch_exceptions=False).stdout
    return text, next(one for one in json.loads(described) if one["name"] == "max")


def test_backends_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "gpu_count", lambda: 0)
    _, described = backends()
    assert (list(described["devices"]), described["reason"]) == (["cpu"], "")


@pytest.mark.usefixtures("old_driver")
def test_backends_with_a_driver_that_refuses() -> None:
    text, described = backends()
    assert list(described["devices"]) == ["cpu"]
    assert "insufficient" in described["reason"]
    assert described["reason"] in text


@pytest.mark.usefixtures("two_gpus")
def test_backends_with_a_gpu() -> None:
    _, described = backends()
    assert list(described["devices"]) == ["cpu", "cuda"]
    assert {"float16", "bfloat16", "float32"} <= set(described["devices"]["cuda"])


@pytest.mark.usefixtures("old_driver")
def test_loading_on_a_driver_that_refuses(tmp_path: Path) -> None:
    make_model(tmp_path, "one-head")
    with pytest.raises(RuntimeError, match="insufficient"):
        Whisper(tmp_path, device="cuda")


def test_too_little_memory_is_told_before_loading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu: Any = SimpleNamespace(stats={"free_memory": 1000}, label="gpu", id=0, api="cuda")
    monkeypatch.setattr(devices, "gpu_count", lambda: 1)
    monkeypatch.setattr("whisper_max_backend.engine.whisper.open_gpu", lambda index: gpu)
    monkeypatch.setattr("whisper_max_backend.engine.gpu.model.compiled", None)
    make_model(tmp_path, "one-head")
    with pytest.raises(RuntimeError, match=r"gpu 0 has 1 MiB .* are missing"):
        Whisper(tmp_path, device="cuda", compute_type="float32")


def test_missing_memory_is_told() -> None:
    device: Any = SimpleNamespace(stats={"free_memory": 100 << 20}, label="gpu", id=3)
    devices.check_memory(100 << 20, device)
    with pytest.raises(RuntimeError, match=r"gpu 3 has 100 MiB .* 28 MiB are missing"):
        devices.check_memory(128 << 20, device)


def test_a_bound_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """MAX is told when the first GPU is opened, and a model that needs more is refused."""
    pool = "MODULAR_DEVICE_CONTEXT_MEMORY_MANAGER_SIZE"
    found: list[str | None] = []
    monkeypatch.setattr("max.driver.Accelerator", lambda index: found.append(os.environ.get(pool)))
    monkeypatch.setenv(pool, "")  # is put back at the end
    monkeypatch.delenv(pool)
    devices.open_gpu(0)
    monkeypatch.setenv(devices.VARIABLE, "2.5")
    devices.open_gpu(0)
    monkeypatch.setenv(pool, "7")
    devices.open_gpu(0)
    assert found == [None, "2500000000", "7"]
    device: Any = SimpleNamespace(stats={"free_memory": 5 << 30}, label="gpu", id=0)
    devices.check_memory(2_500_000_000, device)
    with pytest.raises(RuntimeError, match=r"GPU_GB allows 2385 MiB of gpu 0, .* needs 2862"):
        devices.check_memory(3_000_000_000, device)
    monkeypatch.setenv(devices.VARIABLE, "much")
    with pytest.raises(ValueError, match="GPU_GB must be a number of gigabytes from 0 on"):
        devices.open_gpu(0)


def test_memory_that_a_model_needs() -> None:
    weights = weight_bytes(BASE, DType.bfloat16, DType.bfloat16)
    assert 140e6 < weights < 155e6  # 72.6 million numbers, vectors in float32
    assert weights < memory_needed(BASE, "bfloat16") < 1.6 * weights
    # 48.6 million numbers of the decoder take a byte less each; their scales, 4 bytes a row.
    rows = BASE.n_vocab + 6 * 11 * BASE.n_text_state
    saved = weights - weight_bytes(BASE, DType.bfloat16, DType.int8)
    assert saved == BASE.n_vocab * 512 + 6 * 14 * 512**2 - 4 * rows
    assert memory_needed(BASE, "bfloat16") - memory_needed(BASE, "int8_bfloat16") == saved


@pytest.mark.parametrize(
    ("requested", "running"),
    [
        ("default", "bfloat16"),
        ("auto", "bfloat16"),
        ("float16", "bfloat16"),
        ("bfloat16", "bfloat16"),
        ("float32", "float32"),
        ("int8", "int8_bfloat16"),
        ("int8_float16", "int8_bfloat16"),
        ("int8_bfloat16", "int8_bfloat16"),
        ("int8_float32", "int8_float32"),
    ],
)
def test_what_runs_on_a_gpu(requested: str, running: str) -> None:
    """For a float16 file, which is what faster-whisper's models are."""
    assert select(requested, "float16", "cuda", "cuda").running == running
