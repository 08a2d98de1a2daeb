"""What a plugin can add: the hooks of whisper-max-backend, and what a backend is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from pluggy import HookimplMarker, HookspecMarker

if TYPE_CHECKING:
    from faster_whisper.transcribe import Segment, TranscriptionInfo

hookspec = HookspecMarker("whisper_max_backend")
hookimpl = HookimplMarker("whisper_max_backend")


@hookspec
def register_backends(register: Callable[[Backend], None]) -> None:
    """Register engines that transcribe, by calling ``register(backend)`` for each."""


@hookspec(firstresult=True)
def resolve_model(name: str, local_files_only: bool) -> str | None:
    """Turn a model's name into a local path, or return None to leave it to the next plugin.

    With ``local_files_only`` nothing may be fetched.
    """


@dataclass(frozen=True)
class Availability:
    """Whether a backend works on this machine.

    Attributes:
        devices: Compute types by device name, e.g. ``{"cpu": ("float32", "int8")}``; empty where
            the backend is not usable.
        reason: Why it is not usable, or not on a device that is there, and what to do about it.
        kernels: What its kernels use of each device, for people.
    """

    devices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    reason: str = ""
    kernels: Mapping[str, str] = field(default_factory=dict)

    @property
    def usable(self) -> bool:
        return bool(self.devices)

    def runs(self, device: str, compute_type: str) -> bool:
        """Whether a request can be met; "auto" devices and "default" or "auto" types always can."""
        if device == "auto":
            types = list(self.devices.values())
        else:
            types = [self.devices[device]] if device in self.devices else []
        return any(compute_type in ("default", "auto", *those) for those in types)


class Transcriber(Protocol):
    """A loaded model."""

    def transcribe(self, audio: Any, **options: Any) -> tuple[Iterable[Segment], TranscriptionInfo]:
        """Transcribe a path, file object or float32 samples at 16 kHz.

        The options are those of ``faster_whisper.WhisperModel.transcribe``.
        """


class Backend(Protocol):
    """An engine. ``load_model(backend="auto")`` takes the usable one of the highest priority."""

    name: str
    summary: str
    priority: int

    def probe(self) -> Availability:
        """What works on this machine, found out without loading a model."""

    def load(self, model: str, device: str, compute_type: str, **kwargs: Any) -> Transcriber:
        """Load a model by name or path; `plugins.resolve_model` turns the one into the other."""
