"""The hooks of whisper-max-backend: what a plugin can add."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pluggy import HookimplMarker, HookspecMarker

if TYPE_CHECKING:
    from .backends import Backend

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
