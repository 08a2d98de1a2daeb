"""The backend "ctranslate2": faster-whisper as it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ctranslate2
import faster_whisper

from ..hookspecs import Availability, Backend, Transcriber, hookimpl


class CTranslate2Backend:
    name = "ctranslate2"
    summary = "stock faster-whisper"
    priority = 50

    def probe(self) -> Availability:
        devices = ["cpu", *(["cuda"] if ctranslate2.get_cuda_device_count() > 0 else [])]
        return Availability(
            {
                device: tuple(sorted(ctranslate2.get_supported_compute_types(device)))
                for device in devices
            }
        )

    def load(self, model: str, device: str, compute_type: str, **kwargs: Any) -> Transcriber:
        from ..plugins import resolve_model
        from ..swap import stock_models

        if not kwargs.get("files"):
            model = resolve_model(
                model,
                local_files_only=kwargs.get("local_files_only", False),
                cache_dir=kwargs.get("download_root"),
                revision=kwargs.get("revision"),
                use_auth_token=kwargs.get("use_auth_token"),
            )
        with stock_models():
            transcriber: Transcriber = faster_whisper.WhisperModel(
                model, device=device, compute_type=compute_type, **kwargs
            )
        return transcriber


@hookimpl
def register_backends(register: Callable[[Backend], None]) -> None:
    register(CTranslate2Backend())
