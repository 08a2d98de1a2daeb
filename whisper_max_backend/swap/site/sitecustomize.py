"""Python imports this when it starts in a process of `whisper-max run`.

The swap waits for `ctranslate2.models` to be imported, so that other processes pay nothing for it.
An environment's own ``sitecustomize`` is imported afterwards.
"""

from __future__ import annotations

import atexit
import functools
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
MODULE = "ctranslate2.models"


class SwapAfterImport(importlib.abc.MetaPathFinder):
    """Swaps whenever the module has been executed: when it is imported, anew or by `reload`, too.

    Which file that is, the other finders say.
    """

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """The module's own spec, with a loader that swaps at its end."""
        others = [finder for finder in sys.meta_path if finder is not self]
        if len(others) < len(sys.meta_path) and sys.meta_path[0] is not self:
            sys.meta_path[:] = [self, *others]  # a program's own finder would hide the module
        if fullname != MODULE:
            return None
        for finder in others:
            find = getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = find and find(fullname, path, target)
            if spec is not None:
                loader: Any = spec.loader
                if loader is not None and not isinstance(loader, SwappingLoader):
                    loader = SwappingLoader(loader)
                spec.loader = loader
                return spec
        return None


class SwappingLoader:
    """The module's own loader in all but that it swaps after it has executed the module."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    @property  # type: ignore[misc]
    def __class__(self) -> Any:  # for isinstance
        return type(self._loader)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        if hasattr(module, "Whisper"):  # which a CTranslate2 without its compiled part has not
            swap(module)


def swap(models: ModuleType) -> None:
    """Swap with the defaults that the command was given."""
    try:
        from whisper_max_backend.swap import hold
    except ImportError as error:
        print(
            f"whisper-max run: {sys.executable} cannot import whisper_max_backend ({error}), so "
            "its models run unswapped; install whisper-max-backend there",
            file=sys.stderr,
        )
        return
    if os.environ.get(LOG):
        log_to_stderr(os.environ[LOG])
    hold(models, json.loads(os.environ[VARIABLE]))


@functools.cache
def log_to_stderr(level: str) -> None:
    logger = logging.getLogger("whisper_max_backend")
    logger.setLevel(level)
    logger.addHandler(logging.StreamHandler())
    logger.propagate = False  # a program that logs everything would say it twice


def tell_if_unswapped() -> None:
    """Say so where the program's `ctranslate2.models.Whisper` is not the swapped one at its end."""
    there = getattr(sys.modules.get(MODULE), "Whisper", None)
    if there is not None and type(there).__module__ != "whisper_max_backend.swap.installation":
        print(
            f"whisper-max run: the swap did not hold in process {os.getpid()} "
            f"({' '.join(sys.orig_argv)}): at its end {MODULE}.Whisper is CTranslate2's own, so "
            "models may have run on CTranslate2",
            file=sys.stderr,
        )


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
    if os.environ.get(LOG):
        atexit.register(tell_if_unswapped)
    import_next()
