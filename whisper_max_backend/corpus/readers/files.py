"""Recordings as files: one by one, or all of a folder."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator
from typing import Any

from ...hookspecs import Row
from ...suffixes import SUFFIXES
from ..places import address_of, file_system, is_address, opened


class FileReader:
    """Files, and folders with all folders in them; what is no sound or film there is left out."""

    name = "files"

    def reads(self, source: str) -> bool:
        return True

    def rows(self, source: str, name: str) -> Iterator[Row]:
        found = _stored(source, name) if is_address(source) else _local(source, name)
        none = True
        for row in found:
            none = False
            yield row
        if none:
            raise ValueError(f"{source}: the folder holds no sound or film")

    def audio(self, row: Row) -> Any:
        return opened(row.source) if is_address(row.source) else row.source


def _local(source: str, name: str) -> Iterator[Row]:
    if not os.path.isdir(source):
        yield Row(name, source, size=os.stat(source).st_size)
        return

    def fail(error: OSError) -> None:
        raise error  # a folder that cannot be listed

    for folder, folders, files in os.walk(source, onerror=fail):
        folders.sort()
        for file in sorted(files):
            if is_recording(file):
                path = os.path.join(folder, file)
                yield Row(os.path.relpath(path, source), path, size=os.stat(path).st_size)


def _stored(source: str, name: str) -> Iterator[Row]:
    from pyarrow.fs import FileSelector, FileType

    store, path = file_system(source)
    (found,) = store.get_file_info([path])
    if found.type == FileType.File:
        yield Row(name, source, size=found.size)
        return
    if found.type == FileType.NotFound:
        raise FileNotFoundError(f"{source}: there is no such file")
    listed = store.get_file_info(FileSelector(path, recursive=True))
    for info in sorted(listed, key=lambda info: str(info.path)):
        if info.type == FileType.File and is_recording(info.path):
            key = posixpath.relpath(info.path, path)
            yield Row(key, address_of(info.path, source, path), size=info.size)


def is_recording(name: str) -> bool:
    """Whether a file in a folder or an archive is taken for sound or film, by its name."""
    return os.path.splitext(name)[1].lower() in SUFFIXES
