"""Values that rooms of the engine hand to each other."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil

import whisper_max_backend.cli
import whisper_max_backend.engine.api
import whisper_max_backend.engine.checkpoint
import whisper_max_backend.engine.search
import whisper_max_backend.engine.state

ROOMS = (
    whisper_max_backend.cli,
    whisper_max_backend.engine.api,
    whisper_max_backend.engine.checkpoint,
    whisper_max_backend.engine.search,
    whisper_max_backend.engine.state,
)
FILLED = {"Candidates", "Constraints", "Hypotheses", "KVAllocation", "Verdict"}
"""What is filled in step by step, or holds buffers that are exchanged."""


def test_what_is_handed_on_cannot_be_changed() -> None:
    """Requests of several threads share them."""
    changeable = set()
    for room in ROOMS:
        for found in pkgutil.iter_modules(room.__path__, f"{room.__name__}."):
            for value in vars(importlib.import_module(found.name)).values():
                if isinstance(value, type) and value.__module__ == found.name:
                    parameters = getattr(value, "__dataclass_params__", None)
                    if dataclasses.is_dataclass(value) and not parameters.frozen:  # type: ignore[union-attr]
                        changeable.add(value.__name__)
    assert changeable == FILLED
