"""Where a model's bytes come from, and the arrays made of them."""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

Buffer: TypeAlias = bytes | memoryview


class Files:
    """The files of one model: a directory, or a mapping of names to contents.

    Directory files are memory-mapped, so reading one costs nothing until its pages are touched.
    """

    def __init__(self, path: str, contents: Mapping[str, Any] | None = None) -> None:
        """`contents` as `file_contents` takes them."""
        self.path = path
        self._memory = None if contents is None else file_contents(contents)

    def names(self) -> list[str]:
        """Names of all files, sorted; of the regular files of the directory itself."""
        if self._memory is not None:
            return sorted(self._memory)
        try:
            return sorted(entry.name for entry in os.scandir(self.path) if entry.is_file())
        except OSError:
            return []

    def describe(self, name: str) -> str:
        """How error messages name a file."""
        return f"'{name}' in model '{self.path}'"

    def read(self, name: str) -> Buffer | None:
        """The file's bytes, or None when it is absent. RuntimeError when it cannot be read."""
        if self._memory is not None:
            return self._memory.get(name)
        path = Path(self.path, name)
        try:
            with path.open("rb") as file:
                if os.fstat(file.fileno()).st_size == 0:
                    return b""
                return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        except (OSError, ValueError) as error:
            raise RuntimeError(f"Unable to read file {self.describe(name)}: {error}") from error

    def require(self, name: str, remedy: str = "") -> Buffer:
        """The file's bytes. RuntimeError, the reference's, when it is absent."""
        content = self.read(name)
        if content is None:
            message = f"Unable to open file {self.describe(name)}"
            raise RuntimeError(f"{message}: {remedy}" if remedy else message)
        return content

    def text(self, name: str) -> str | None:
        """The file as UTF-8 text, or None when it is absent."""
        content = self.read(name)
        try:
            return None if content is None else str(content, "utf-8")
        except UnicodeDecodeError as error:
            raise RuntimeError(
                f"File {self.describe(name)} is not UTF-8 text ({error}): fetch or convert the "
                "model again"
            ) from error

    def json(self, name: str) -> Any:
        """The file's JSON value, or None when it is absent."""
        text = self.text(name)
        try:
            return None if text is None else json.loads(text)
        except (ValueError, RecursionError) as error:
            raise RuntimeError(
                f"File {self.describe(name)} is not valid JSON ({error}): fetch or convert the "
                "model again"
            ) from error

    def object(self, name: str) -> dict[str, Any] | None:
        """The file's JSON object, or None when it is absent."""
        value = self.json(name)
        if value is not None and not isinstance(value, dict):
            raise RuntimeError(
                f"File {self.describe(name)} should hold a JSON object, not a "
                f"{type(value).__name__}"
            )
        return value


def file_contents(files: Mapping[str, Any]) -> dict[str, bytes]:
    """The contents of ctranslate2's `files`, bytes or file-like objects by name, each read once.

    TypeError where it is something else, as the reference has it.
    """
    if not isinstance(files, Mapping):
        raise TypeError(
            "files argument must be a dictionary mapping file names to the file contents, "
            f"not {type(files).__name__}"
        )
    return {str(name): _content(name, value) for name, value in files.items()}


def _content(name: str, value: Any) -> bytes:
    content = value.read() if hasattr(value, "read") else value
    if not isinstance(content, bytes | bytearray | memoryview):
        raise TypeError(
            f"File content must be a file-like or bytes object: {name!r} gives "
            f"{type(content).__name__}"
        )
    return bytes(content)


@dataclass(frozen=True)
class Lazy:
    """An array that is made when asked for."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    make: Callable[[], np.ndarray]


class Weights(Mapping[str, np.ndarray]):
    """Arrays by name. Views of the file are kept; what has to be put together is made anew each
    time it is asked for, so that it lives no longer than its user wants it."""

    def __init__(self, entries: Mapping[str, np.ndarray | Lazy]) -> None:
        self._entries = dict(entries)

    def __getitem__(self, name: str) -> np.ndarray:
        entry = self._entries[name]
        return entry.make() if isinstance(entry, Lazy) else entry

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


@dataclass(frozen=True)
class Contents:
    """What a reader found: weights under CTranslate2's names, and the rest of the model."""

    entries: Mapping[str, np.ndarray | Lazy]
    encoder_heads: int
    decoder_heads: int
    tokens: list[str]
    config: Mapping[str, Any]
    file: str  # where the weights are, for messages
    layers: tuple[int, int] | None = None  # of encoder and decoder, where they are stated
    attributes: Mapping[str, Any] = field(default_factory=dict)  # scalars of the file


def array(buffer: Buffer, dtype: np.dtype[Any], shape: tuple[int, ...], offset: int) -> np.ndarray:
    """A read-only view of a part of the file; the caller has checked that it is inside."""
    view: np.ndarray = np.ndarray(shape, dtype, buffer, offset)
    view.flags.writeable = False
    return view
