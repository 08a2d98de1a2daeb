"""Puts this package's engine in the place of ``ctranslate2.models.Whisper``.

faster-whisper, and programs with a copy of its code, look that class up when they build a model:
replacing the attribute reaches all of them, whenever they were imported. This module imports
neither MAX nor faster-whisper, so that a process that builds no model pays nothing.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Union

from .stock_calls import with_stock_calls

_DEFAULTS = {
    "device": ("cpu", "auto"),
    "device_index": (0,),
    "compute_type": ("default",),
    "inter_threads": (1,),
    "intra_threads": (0,),
    "max_queued_batches": (0,),
    "flash_attention": (False,),
    "tensor_parallel": (False,),
}
"""What faster-whisper or CTranslate2 give where a program says nothing."""

_log = logging.getLogger("whisper_max_backend")
_lock = threading.RLock()
_active: list[Installation] = []
_told: set[str] = set()
_stock: Any = None
_held = False
_wants_stock: ContextVar[bool] = ContextVar("_wants_stock", default=False)


def install(backend: str = "max", **defaults: Any) -> Installation:
    """From now on models of ``ctranslate2.models.Whisper``, and so faster-whisper's, are ours.

    What this engine cannot load is loaded by CTranslate2, with one warning that says why.
    Installing twice changes nothing but the defaults. Several threads may call this at once.

    Args:
        backend: ``"max"``.
        defaults: Arguments of ``ctranslate2.models.Whisper`` (``compute_type="int8"``,
            ``intra_threads=2``) for models whose program leaves them at the default.

    Returns:
        A context manager: at its end what was there before is there again.

    Raises:
        ValueError: Another backend; only this one has CTranslate2's surface.
        TypeError: A default that is not an argument of ``ctranslate2.models.Whisper``.
    """
    if backend != "max":
        raise ValueError(
            f"the backend {backend!r} cannot be swapped in: only 'max' has the surface of "
            "ctranslate2.models.Whisper"
        )
    for name in defaults:
        if name not in _DEFAULTS:
            raise TypeError(
                f"{name!r} is not an argument of ctranslate2.models.Whisper that can have a "
                f"default: choose from {', '.join(_DEFAULTS)}"
            )
    return Installation(defaults)


def uninstall() -> None:
    """``ctranslate2.models.Whisper`` is CTranslate2's own class again, if it was not."""
    models = _models()
    with _lock:
        _active.clear()
        _apply(models)


def hold(models: Any, defaults: Mapping[str, Any]) -> None:
    """Swap in a process of ``whisper-max run``, each time ``ctranslate2.models`` was executed.

    The first time it installs; a later execution of the module gets what is installed then.
    """
    global _held
    with _lock:
        first, _held = not _held, True
        _take_stock(models)
    if first:
        install(**defaults)
    with _lock:
        _apply(models)


@contextmanager
def stock_models() -> Iterator[None]:
    """In this block and thread, models are CTranslate2's although the swap is on."""
    token = _wants_stock.set(True)
    try:
        yield
    finally:
        _wants_stock.reset(token)


class Installation:
    """A swap under way; as a context manager it ends with the block."""

    def __init__(self, defaults: dict[str, Any]) -> None:
        models = _models()
        with _lock:
            if not _active:
                _take_stock(models)
            _active.append(self)
            self.stand_in = StandIn(defaults)
            _apply(models)

    def __enter__(self) -> Installation:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        models = _models()
        with _lock:
            if self in _active:
                _active.remove(self)
            _apply(models)


class StandIn:
    """Called, subclassed and asked for its attributes like the class ``Whisper`` of this engine."""

    def __init__(self, defaults: dict[str, Any]) -> None:
        self._defaults = defaults

    def __call__(self, *places: Any, **given: Any) -> Any:
        """A model: ours, else CTranslate2's, else the error that CTranslate2 raises."""
        if _wants_stock.get():
            return _stock(*places, **given)
        if "files" in given:
            given["files"] = _read_once(given["files"])
        filled = {**dict(zip(("model_path", "device"), places, strict=False)), **given}
        for name, value in self._defaults.items():
            said = filled.get(name, _DEFAULTS[name][0])
            if any(said is usual or said == usual for usual in _DEFAULTS[name]):
                filled[name] = value
        try:
            if len(places) > 2:
                raise TypeError("only model_path and device are positional")
            model = _class()(**filled)
        except Exception as ours:
            try:
                as_called = len(places) > 2 or not self._defaults  # so messages show the call
                model = _stock(*places, **given) if as_called else _stock(**filled)
            except Exception as error:
                raise error from None
            _tell(ours)
            return model
        _log.info(
            "%s runs on this engine (%s, %s)",
            *(filled["model_path"], model.device, model.compute_type),
        )
        return model

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(_class())

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        return (_class(),)

    def __instancecheck__(self, instance: Any) -> bool:
        return isinstance(instance, (_class(), _stock))

    def __subclasscheck__(self, subclass: type) -> bool:
        return issubclass(subclass, (_class(), _stock))

    def __or__(self, other: Any) -> Any:  # as in the type hint Whisper | None
        return Union[_stock, other]  # noqa: UP007

    def __ror__(self, other: Any) -> Any:
        return Union[other, _stock]  # noqa: UP007

    def __getattr__(self, name: str) -> Any:
        return getattr(_class(), name)


def _class() -> Any:
    """The engine's class, imported with the first model, and what CTranslate2's has besides."""
    engine = importlib.import_module("whisper_max_backend.engine.whisper")
    return with_stock_calls(engine.Whisper, _stock)


def _read_once(files: Any) -> Any:
    """Model files in memory, of which both classes may have to read the file-like ones."""
    if not isinstance(files, Mapping):
        return files
    contents = {}
    for name, content in files.items():
        read = content.read() if hasattr(content, "read") else content
        contents[name] = read.encode() if read is not content and isinstance(read, str) else read
    return contents


def _models() -> Any:
    """The module with the attribute.

    To be called without the lock: another thread may hold that of the import, and be about to swap
    at its end (site/sitecustomize.py).
    """
    importlib.import_module("ctranslate2")  # which imports it when it is ready to
    return importlib.import_module("ctranslate2.models")


def _take_stock(models: Any) -> None:
    """Remember CTranslate2's class, unless ours stands in its place."""
    global _stock
    if not isinstance(models.Whisper, StandIn):
        _stock = models.Whisper


def _apply(models: Any) -> None:
    """The attribute is what the latest installation wants, else what it was before the first."""
    if _active:
        models.Whisper = _active[-1].stand_in
    elif isinstance(models.Whisper, StandIn):
        models.Whisper = _stock


def _tell(error: Exception) -> None:
    reason = f"{type(error).__name__}: {error}"
    if reason not in _told:
        _told.add(reason)
        _log.warning("CTranslate2 runs the model, not this engine (%s)", reason)
