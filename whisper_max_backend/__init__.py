"""faster-whisper's names, with models that run on MAX graphs and Mojo kernels."""

import gc as _gc
from importlib import import_module as _import_module

# Instead of typing's, which would take time before MAX's library is mapped (library_loading.py).
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from faster_whisper import available_models, decode_audio, download_model, format_timestamp

    from .batched import BatchedInferencePipeline
    from .hookspecs import hookimpl
    from .many import transcribe_many
    from .model import WhisperModel
    from .plugins import load_model
    from .swap import install, uninstall
    from .system.cancellation import Cancelled, CancelToken

    __version__: str

__all__ = [
    "BatchedInferencePipeline",
    "CancelToken",
    "Cancelled",
    "WhisperModel",
    "__version__",
    "available_models",
    "decode_audio",
    "download_model",
    "format_timestamp",
    "hookimpl",
    "install",
    "load_model",
    "transcribe_many",
    "uninstall",
]

# Imported when they are first asked for: a process that is swapped in (swap/) may never do so,
# or may be in the middle of importing faster-whisper.
_HOMES = {
    "BatchedInferencePipeline": "whisper_max_backend.batched",
    "CancelToken": "whisper_max_backend.system.cancellation",
    "Cancelled": "whisper_max_backend.system.cancellation",
    "WhisperModel": "whisper_max_backend.model",
    "hookimpl": "whisper_max_backend.hookspecs",
    "install": "whisper_max_backend.swap",
    "uninstall": "whisper_max_backend.swap",
    "load_model": "whisper_max_backend.plugins",
    "transcribe_many": "whisper_max_backend.many",
    "available_models": "faster_whisper",
    "decode_audio": "faster_whisper",
    "download_model": "faster_whisper",
    "format_timestamp": "faster_whisper",
}
_LOADERS = {"BatchedInferencePipeline", "WhisperModel", "load_model"}
"""Who asks for these is about to load a model."""


def __getattr__(name: str) -> "Any":
    if name == "__version__":
        value: Any = _import_module("importlib.metadata").version("whisper-max-backend")
    elif name in _HOMES:
        if name in _LOADERS:
            _import_module("whisper_max_backend.engine.compile.library_loading").begin_to_load()
        value = getattr(_imported(_HOMES[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def _imported(module: str) -> "Any":
    """Import a module, and collect no garbage meanwhile: an import makes next to none."""
    collecting = _gc.isenabled()
    _gc.disable()
    try:
        return _import_module(module)
    finally:
        if collecting:
            _gc.enable()


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
