"""Paths of this machine and addresses of stores such as s3://bucket/file."""

from __future__ import annotations

import io
import os
import posixpath
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import quote

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

_SAFE = "!#$%&'()*+,/:;=?@[]~"  # in an address, besides letters and digits; % is quoted already
_READ_AHEAD = 1 << 22  # bytes; a store answers each request after milliseconds


def is_address(source: str) -> bool:
    return "://" in source


def absolute(source: str) -> str:
    """The same file for whoever reads it, in whatever folder."""
    return source if is_address(source) else os.path.abspath(source)


def beside(source: str, name: str) -> str:
    """What a list calls `name`: as it is if it is absolute, else in the list's own folder."""
    if is_address(name) or os.path.isabs(name):
        return name
    if is_address(source):
        return posixpath.join(posixpath.dirname(source), name)
    return os.path.normpath(os.path.join(os.path.dirname(source), name))


def file_system(address: str) -> tuple[FileSystem, str]:
    """The store of an address, and the path in it.

    Raises:
        ValueError: There is no such kind of store, or the address is not one.
        OSError: The store does not answer.
    """
    from pyarrow.fs import FileSystem

    try:
        store, path = FileSystem.from_uri(quote(address, safe=_SAFE))
    except (NotImplementedError, ValueError) as error:  # pyarrow's ArrowInvalid is a ValueError
        raise ValueError(f"{address} cannot be read: {error}") from error
    return store, path


def address_of(other: str, address: str, path: str) -> str:
    """The address of the path `other` in the store in which an address has a path."""
    named, query, options = address.partition("?")
    path = path.removesuffix("/")
    before = named.removesuffix("/").removesuffix(path).removesuffix(quote(path))
    return f"{before}{quote(other)}{query}{options}"


def opened(source: str) -> BinaryIO:
    """A file to read, where it may be read in any order."""
    if not is_address(source):
        return open(source, "rb")
    store, path = file_system(source)
    file: Any = store.open_input_file(path)
    return io.BufferedReader(file, _READ_AHEAD)


def text_of(source: str) -> io.TextIOBase:
    """A text file to read, with or without gzip."""
    import gzip

    file: Any = opened(source)
    if source.endswith(".gz"):
        file = gzip.GzipFile(fileobj=file)
    return io.TextIOWrapper(file, encoding="utf-8")
