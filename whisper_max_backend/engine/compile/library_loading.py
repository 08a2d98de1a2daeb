"""MAX's library, mapped into the process while Python imports other modules.

It takes 30 to 50 ms, during which the thread that does it does not hold the interpreter.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import sys
from importlib import import_module
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec

from ...system.cpu_features import missing_features
from ...system.unpatched_threads import new_lock, start_thread

_MEANWHILE = ("logging", "pathlib", "ast")
"""Modules that others import soon, and that have no library of their own: the system maps one
library at a time, so that one of theirs would wait for MAX's."""


@functools.cache
def begin_to_load() -> None:
    """Map the library in a thread, on Linux, if this processor can run it.

    Errors are left to the import of MAX, which comes later and maps the library where this has
    not. A fork waits for the thread: the child would have half a library.
    """
    if sys.platform != "linux" or missing_features():
        return
    library = _library()
    if library is None:
        return
    open_library = ctypes.CDLL(None).dlopen  # unlike ctypes.CDLL, it lets other threads run
    open_library.restype, open_library.argtypes = ctypes.c_void_p, (ctypes.c_char_p, ctypes.c_int)
    loading = new_lock()

    def load() -> None:
        open_library(os.fsencode(library), os.RTLD_NOW)
        loading.release()

    def wait() -> None:
        with loading:
            pass

    loading.acquire()
    with contextlib.suppress(RuntimeError):  # there are no more threads to be had
        start_thread(load)
        os.register_at_fork(before=wait)
    for module in _MEANWHILE:
        import_module(module)


def _library() -> str | None:
    """The extension module behind all of `max`."""
    with contextlib.suppress(ImportError, ValueError):
        package = find_spec("max")
        for folder in (package and package.submodule_search_locations) or ():
            library = os.path.join(folder, "_core" + EXTENSION_SUFFIXES[0])
            if os.path.isfile(library):
                return library
    return None
