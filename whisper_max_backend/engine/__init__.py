"""The engine: the surface of ctranslate2.models.Whisper over MAX graphs."""

from .compile import telemetry

telemetry.disable_by_default()  # before a module of this package imports max
