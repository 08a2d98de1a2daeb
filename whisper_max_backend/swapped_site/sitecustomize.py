"""Python imports this when it starts in a process of `whisper-max run`.

The swap waits for `ctranslate2` to be imported, so that other processes pay nothing for it. An
environment's own ``sitecustomize`` is imported afterwards.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import json
import logging
import os
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

VARIABLE = "WHISPER_MAX_SWAP"
LOG = "WHISPER_MAX_SWAP_LOG"
"""The level of what is logged to stderr, if anything."""


class SwapAfterImport(importlib.abc.MetaPathFinder):
    """Swaps as soon as `ctranslate2` has been imported."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """The module's own spec, with a loader that swaps at its end."""
        if fullname != "ctranslate2":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            return spec
        loader: Any = spec.loader
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            swap()

        loader.exec_module = exec_module
        return spec


def swap() -> None:
    """Swap with the defaults that the command was given."""
    try:
        from whisper_max_backend.swap import install
    except ImportError as error:
        print(
            f"whisper-max run: {sys.executable} cannot import whisper_max_backend ({error}), so "
            "its models run unswapped; install whisper-max-backend there",
            file=sys.stderr,
        )
        return
    if os.environ.get(LOG):
        logger = logging.getLogger("whisper_max_backend")
        logger.setLevel(os.environ[LOG])
        logger.addHandler(logging.StreamHandler())
        logger.propagate = False  # a program that logs everything would say it twice
    install(**json.loads(os.environ[VARIABLE]))


def import_next() -> None:
    """The sitecustomize that this one hides."""
    folder = os.path.dirname(__file__)
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or ".") != folder]
    this = sys.modules.pop("sitecustomize")
    try:
        importlib.import_module("sitecustomize")
    except ModuleNotFoundError as error:
        if error.name != "sitecustomize":
            raise
        sys.modules["sitecustomize"] = this


if os.environ.get(VARIABLE):
    sys.meta_path.insert(0, SwapAfterImport())
    import_next()
