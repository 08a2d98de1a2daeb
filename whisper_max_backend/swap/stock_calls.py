"""Calls that only CTranslate2's own class knows.

A build of CTranslate2 of somebody's own, or one that is newer than this package, may have methods
and arguments that the engine has not. Where it does, the engine's models pass such calls on to a
model of that build, which is loaded with the first of them.
"""

from __future__ import annotations

import functools
import inspect
import logging
import re
import threading
from collections.abc import Callable
from typing import Any

_log = logging.getLogger("whisper_max_backend")


@functools.cache
def with_stock_calls(engine: type, stock: type) -> type:
    """The engine's class; a subclass of it where CTranslate2's class ``stock`` offers more."""
    members: dict[str, Any] = {}
    for name in dir(stock):
        theirs = inspect.getattr_static(stock, name)
        if name.startswith("_"):
            continue
        if not hasattr(engine, name):
            members[name] = _passed_on(name, theirs)
        elif callable(theirs) and _takes_more(getattr(stock, name), getattr(engine, name)):
            members[name] = _known_or_passed_on(getattr(engine, name))
    if not members:
        return engine
    members |= {"_stock_class": stock, "__signature__": inspect.signature(engine)}
    members |= {"__module__": engine.__module__, "__doc__": engine.__doc__}
    return type(engine.__name__, (_StockCalls, engine), members)


class _StockCalls:
    """Keeps what a model was loaded with, and CTranslate2's model beside it."""

    _stock_class: type

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._arguments = (args, kwargs)
        self._stock_model: Any = None
        self._stock_loading = threading.Lock()

    def unload_model(self, to_cpu: bool = False) -> None:
        super().unload_model(to_cpu)  # type: ignore[misc]
        with self._stock_loading:
            self._stock_model = None

    def _ask_stock(self, name: str, reason: str) -> Any:
        """The attribute of CTranslate2's model."""
        _tell(name, reason)
        with self._stock_loading:
            if self._stock_model is None:
                args, kwargs = self._arguments
                self._stock_model = self._stock_class(*args, **kwargs)
        return getattr(self._stock_model, name)


def _passed_on(name: str, theirs: Any) -> Any:
    """What stands for an attribute that the engine has not."""
    reason = "this engine has no such attribute"
    if isinstance(theirs, staticmethod | classmethod) or not hasattr(theirs, "__get__"):
        return theirs
    if not callable(theirs):
        return property(lambda self: self._ask_stock(name, reason), doc=theirs.__doc__)

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return _call(self._ask_stock(name, reason), args, kwargs)

    method.__name__, method.__doc__ = name, theirs.__doc__
    return method


def _known_or_passed_on(ours: Callable[..., Any]) -> Callable[..., Any]:
    """A method of the engine, for arguments that it takes."""
    signature = inspect.signature(ours)

    @functools.wraps(ours)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            signature.bind(self, *args, **kwargs)
        except TypeError as error:
            return _call(self._ask_stock(ours.__name__, str(error)), args, kwargs)
        return ours(self, *args, **kwargs)

    return method


def _takes_more(theirs: Any, ours: Callable[..., Any]) -> bool:
    names = _argument_names(theirs)
    return names is None or not names <= set(inspect.signature(ours).parameters)


def _argument_names(function: Any) -> set[str] | None:
    """Of a Python function, or of one of pybind11, whose documentation begins with its signatures.

    None where they are unknown.
    """
    try:
        return set(inspect.signature(function).parameters)
    except ValueError:
        signature = rf"^(?:\d+\. )?{function.__name__}\((.*)\) -> "
        signatures: list[str] = re.findall(signature, function.__doc__ or "", re.MULTILINE)
    return set(re.findall(r"(?:^|, )(\w+): ", ", ".join(signatures))) or None


def _call(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return function(*map(_native, args), **{name: _native(value) for name, value in kwargs.items()})


def _native(value: Any) -> Any:
    """The engine's arrays as CTranslate2 takes them."""
    import numpy as np
    from ctranslate2 import StorageView

    from ..engine.api.arrays import ArrayView

    if not isinstance(value, ArrayView):
        return value
    return StorageView.from_array(np.ascontiguousarray(value, np.float32))


@functools.cache
def _tell(name: str, reason: str) -> None:
    _log.warning(
        "%s of this CTranslate2 is answered by a model of its own, which is loaded beside this "
        "engine's (%s)",
        *(name, reason),
    )
