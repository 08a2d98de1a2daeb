"""Devices: which name means which device, and whether this machine and release have it."""

from __future__ import annotations

import functools
import logging
import os
from typing import TYPE_CHECKING, Any

from ...system.size_variables import gigabytes
from . import arguments

if TYPE_CHECKING:
    from max.driver import Device

_log = logging.getLogger("whisper_max_backend")

VARIABLE = "WHISPER_MAX_GPU_GB"
"""How many gigabytes (10^9 bytes) of a GPU's memory MAX takes for its pool; 0 leaves it to MAX."""
_POOL_BYTES = "MODULAR_DEVICE_CONTEXT_MEMORY_MANAGER_SIZE"


def resolve_device(name: Any) -> str:
    """The device that a name stands for: ``"cpu"`` or ``"cuda"``, which is any GPU.

    Args:
        name: ``"cpu"``, ``"cuda"`` or ``"gpu"``, or ``"auto"``, which is the GPU if there is one
            that MAX can use.

    Raises:
        TypeError: Not a string.
        ValueError: An unknown name.
        RuntimeError: A GPU was asked for and there is none.
    """
    if not isinstance(name, str):
        raise TypeError(f"device must be a string, got {name!r}")
    if name in ("cpu", "CPU"):
        return "cpu"
    if name in ("auto", "AUTO"):
        refused = gpu_refusal()
        if refused:
            _tell(refused)
        return "cuda" if gpu_count() > 0 and not refused else "cpu"
    if name not in ("cuda", "CUDA", "gpu", "GPU"):
        raise ValueError(f"unsupported device {name} (possible values are: cpu, cuda, auto)")
    if gpu_count() == 0:
        raise RuntimeError(
            f"the device {name} was requested, but no GPU is found on this machine: install its "
            'driver, or choose device="cpu" or device="auto"'
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
        [arguments.integer("device_index", value)]
        if one
        else arguments.integers("device_index", value)
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


def open_gpu(index: int) -> Device:
    """A GPU by its index.

    Raises:
        RuntimeError: Its driver refuses, for example because it is too old for MAX.
        ValueError: `VARIABLE` is no size.
    """
    from max.driver import Accelerator

    if pool := gigabytes(VARIABLE, 0):
        os.environ.setdefault(_POOL_BYTES, str(pool))  # MAX reads it when it opens the first GPU
    try:
        return Accelerator(index)
    except Exception as error:  # MAX has no error of its own for it
        raise RuntimeError(
            f"the GPU {index} cannot be used ({error}): MAX needs a current driver of the GPU's "
            'maker; update it, or choose device="cpu"'
        ) from error


def gpu_refusal() -> str:
    """Why the GPU that is there cannot be used; nothing where it can be, or there is none."""
    if gpu_count() == 0:
        return ""
    try:
        open_gpu(0)
    except RuntimeError as error:
        return str(error)
    return ""


@functools.cache
def _tell(refused: str) -> None:
    _log.warning("%s; the CPU is used instead", refused)


def check_memory(needed: int, device: Device) -> None:
    """Refuse to load what does not fit into the memory that a device has free.

    Args:
        needed: Bytes.
        device: Where they are wanted. One that does not tell its memory is not refused.

    Raises:
        RuntimeError: It does not fit, or `VARIABLE` allows less.
    """
    allowed = gigabytes(VARIABLE, 0)
    if 0 < allowed < needed:
        raise RuntimeError(
            f"{VARIABLE} allows {_mib(allowed)} MiB of {device.label} {device.id}, and the model "
            f"needs {_mib(needed)}: allow more, or choose a smaller model or compute type"
        )
    free = device.stats.get("free_memory")
    if free is None or needed <= free:
        return
    raise RuntimeError(
        f"{device.label} {device.id} has {_mib(free)} MiB of memory free, and the model needs "
        f"{_mib(needed)}: {_mib(needed - free)} MiB are missing. Close what else uses the device, "
        "or choose a smaller model or compute type"
    )


def _mib(size: int) -> int:
    return -(-size // 2**20)
