"""What a corpus is read from: a module for each kind of input.

The readers here are registered as those of plugins are.
"""

from __future__ import annotations

from collections.abc import Callable

from ...hookspecs import Reader
from ...plugins import manager, registered
from .files import FileReader
from .manifests import ListReader, ManifestReader
from .tables import DatasetReader, ParquetReader
from .tars import TarReader

BUILT_IN: tuple[Callable[[], Reader], ...] = (
    *(ListReader, ManifestReader, ParquetReader, TarReader, DatasetReader),
    FileReader,  # reads whatever is left
)
"""In the order in which they are asked."""


def readers() -> dict[str, Reader]:
    """Every reader by name, in the order in which they are asked: plugins first.

    Raises:
        PluginError: Two readers have one name.
    """
    return registered("reader", manager().hook.register_readers)
