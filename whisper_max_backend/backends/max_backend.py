"""The backend "max": this package's own engine."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ..hookspecs import Availability, Backend, Transcriber, hookimpl
from ..model import WhisperModel

_COMPUTE_TYPES = (
    "bfloat16",
    "float16",
    "float32",
    "int16",
    "int8",
    "int8_bfloat16",
    "int8_float16",
    "int8_float32",
)


class MaxBackend:
    name = "max"
    summary = "MAX graphs and Mojo kernels"
    priority = 100

    def probe(self) -> Availability:
        try:
            from ..system.cpu_features import require_processor

            require_processor()
            from ..engine.api import devices
            from ..engine.compile import cpu_target
            from ..system import executable_memory

            cpu_target.apply_cpu_target()
            executable_memory.require_executable_memory()
        except ImportError as error:
            return Availability(reason=f"MAX cannot be imported ({error}): reinstall this package")
        except (RuntimeError, ValueError) as error:
            return Availability(reason=str(error))
        found = ["cpu"]
        refused = devices.gpu_refusal()
        if devices.gpu_count() > 0 and not refused:
            found.append("cuda")
        return Availability(
            {device: _accepted(device) for device in found},
            reason=refused,
            kernels={"cpu": cpu_target.describe_kernels()},
        )

    def load(self, model: str, device: str, compute_type: str, **kwargs: Any) -> Transcriber:
        transcriber: Transcriber = WhisperModel(
            model, device=device, compute_type=compute_type, **kwargs
        )
        return transcriber


def _accepted(device: str) -> tuple[str, ...]:
    """The compute types that a model on this device may be asked for."""
    from ..engine.api import compute_types

    able, kernels = compute_types.capabilities(device), compute_types.kernels(device)
    accepted = []
    for name in _COMPUTE_TYPES:
        with suppress(ValueError):
            compute_types.resolve(name, "float32", able, device, kernels)
            accepted.append(name)
    return tuple(accepted)


@hookimpl
def register_backends(register: Callable[[Backend], None]) -> None:
    register(MaxBackend())
