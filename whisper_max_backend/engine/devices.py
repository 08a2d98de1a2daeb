"""Devices: which name means which device, and whether this machine and release have it."""

from __future__ import annotations

from typing import Any

from . import requests

IMPLEMENTED = frozenset({"cpu"})
"""Devices that this release has kernels for."""


def resolve_device(name: Any) -> str:
    """The device that a name stands for: ``"cpu"`` or ``"cuda"``, which is any GPU.

    Args:
        name: ``"cpu"``, ``"cuda"`` or ``"gpu"``, or ``"auto"``, which is the GPU if there is one
            and this release can use it.

    Raises:
        TypeError: Not a string.
        ValueError: An unknown name, or a GPU while this release runs on CPUs only.
        RuntimeError: A GPU was asked for and there is none.
    """
    if not isinstance(name, str):
        raise TypeError(f"device must be a string, got {name!r}")
    if name in ("cpu", "CPU"):
        return "cpu"
    if name in ("auto", "AUTO"):
        return "cuda" if "cuda" in IMPLEMENTED and gpu_count() > 0 else "cpu"
    if name not in ("cuda", "CUDA", "gpu", "GPU"):
        raise ValueError(f"unsupported device {name} (possible values are: cpu, cuda, auto)")
    if gpu_count() == 0:
        raise RuntimeError(
            f"the device {name} was requested, but no GPU is found on this machine: install its "
            'driver, or choose device="cpu" or device="auto"'
        )
    if "cuda" not in IMPLEMENTED:
        raise ValueError(
            f"the device {name} was requested, but this release of whisper-max-backend runs on "
            'CPUs only: choose device="cpu" or device="auto"'
        )
    return "cuda"


def device_indices(value: Any, device: str) -> list[int]:
    """The indices of the devices to load the model on, from one index or a list.

    Raises:
        TypeError: Neither an integer nor a list of integers.
        ValueError: An empty list, or a CPU other than 0.
        RuntimeError: There is no GPU of this index.
    """
    one = not hasattr(value, "__len__")
    indices = (
        [requests.integer("device_index", value)]
        if one
        else requests.integers("device_index", value)
    )
    if not indices:
        raise ValueError("At least one device index should be set")
    for index in indices:
        if device == "cpu" and index != 0:
            raise ValueError(f"Invalid CPU device index: {index} (the CPU has the index 0)")
        if device == "cuda" and not 0 <= index < gpu_count():
            raise RuntimeError(f"Invalid GPU device index: {index} (there are {gpu_count()} GPUs)")
    return indices


def gpu_count() -> int:
    """Number of GPUs that MAX can use."""
    from max.driver import accelerator_count

    return int(accelerator_count())
