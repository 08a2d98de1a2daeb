"""faster-whisper's names, with models that run on MAX graphs and Mojo kernels."""

from importlib.metadata import version as _version

from faster_whisper import available_models, decode_audio, download_model, format_timestamp

from .hookspecs import hookimpl
from .model import BatchedInferencePipeline, WhisperModel
from .plugins import load_model

__version__ = _version("whisper-max-backend")

__all__ = [
    "BatchedInferencePipeline",
    "WhisperModel",
    "__version__",
    "available_models",
    "decode_audio",
    "download_model",
    "format_timestamp",
    "hookimpl",
    "load_model",
]
