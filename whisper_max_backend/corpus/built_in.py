"""The plugin of the built-in readers and writers.

Plugins are loaded with every model, so it imports them when it is asked for them.
"""

from __future__ import annotations

from collections.abc import Callable

from ..hookspecs import Reader, Writer, hookimpl


@hookimpl
def register_readers(register: Callable[[Reader], None]) -> None:
    from .readers import BUILT_IN

    for reader in BUILT_IN:
        register(reader())


@hookimpl
def register_writers(register: Callable[[Writer], None]) -> None:
    from .writers import TEXTS, LhotseWriter, TextWriter

    for name in TEXTS:
        register(TextWriter(name))
    register(LhotseWriter())
