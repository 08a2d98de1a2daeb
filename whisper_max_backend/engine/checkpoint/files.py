"""Where a model's bytes come from, and the arrays made of them."""

from __future__ import annotations

import json
import math
import mmap
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

Buffer: TypeAlias = bytes | memoryview

SAFETENSORS = "model.safetensors"
SAFETENSORS_INDEX = "model.safetensors.index.json"
"""Hugging Face's files: the weights, or the names of the files that they are split into."""
MOST_TEXT = 1 << 25
"""Bytes of the largest JSON or text that is read; a tokenizer.json has 2.5 million. Values take up
to 36 times as much memory as their JSON."""
MOST_DIMENSIONS = 8
"""Of a tensor; a convolution's weight has 3."""
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class Files:
    """The files of one model: a directory, or a mapping of names to contents.

    Directory files are memory-mapped, so reading one costs nothing until its pages are touched.
    """

    def __init__(self, path: str, contents: Mapping[str, Any] | None = None) -> None:
        """`contents` as `file_contents` takes them."""
        self.path = path
        self.states: list[os.stat_result] = []
        """Of the files of the directory that were mapped, when they were."""
        self._memory = None if contents is None else file_contents(contents)

    def names(self) -> list[str]:
        """Names of all files, sorted; of the regular files of the directory itself."""
        if self._memory is not None:
            return sorted(self._memory)
        try:
            return sorted(entry.name for entry in os.scandir(self.path) if entry.is_file())
        except (OSError, ValueError):
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
            if not path.is_file():  # opening a pipe would wait for its other end
                return None
            with path.open("rb") as file:
                state = os.fstat(file.fileno())
                if state.st_size == 0:
                    return b""
                self.states.append(state)
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
        if content is not None and len(content) > MOST_TEXT:
            raise RuntimeError(
                f"File {self.describe(name)} is larger than any of its kind: it has "
                f"{len(content)} bytes, and {MOST_TEXT} are read at most"
            )
        try:
            return None if content is None else str(content, "utf-8")
        except UnicodeDecodeError as error:
            raise RuntimeError(
                f"File {self.describe(name)} is not UTF-8 text ({error}): fetch or convert the "
                "model again"
            ) from error

    def json(self, name: str) -> Any:
        """The file's JSON value, or None when it is absent. RuntimeError for null."""
        text = self.text(name)
        if text is None:
            return None
        try:
            value = parse_json(text)
            if value is None:
                raise ValueError("it holds nothing but null")
            return value
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


def parse_json(text: str) -> Any:
    """The value of JSON, which may begin with a byte order mark.

    ValueError or RecursionError where it is none. As in the reference, NaN, numbers beyond float64
    and halves of surrogate pairs are none.
    """
    value = json.loads(
        text.removeprefix("\ufeff"), parse_constant=_finite_number, parse_float=_finite_number
    )
    if _SURROGATE.search(text):
        json.dumps(value, ensure_ascii=False).encode()  # fails for a half without the other
    return value


def _finite_number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is not a finite number")
    return value


def file_contents(files: Mapping[str, Any]) -> dict[str, bytes]:
    """The contents of ctranslate2's `files`, bytes or file-like objects by name, each read once.

    Files may be open as text. TypeError where it is something else, as the reference has it;
    RuntimeError for text that has no UTF-8.
    """
    if not isinstance(files, Mapping):
        raise TypeError(
            "files argument must be a dictionary mapping file names to the file contents, "
            f"not {type(files).__name__}"
        )
    return {str(name): _content(name, value) for name, value in files.items()}


def _content(name: str, value: Any) -> bytes:
    content = value.read() if hasattr(value, "read") else value
    if isinstance(content, str) and content is not value:
        try:
            return content.encode()
        except UnicodeEncodeError as error:
            raise RuntimeError(f"File {name!r} is not text that UTF-8 can hold: {error}") from error
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
    size: int  # bytes of all files of weights
    config_file: str  # where `config` is from, for messages
    config_keys: Mapping[str, str] = field(default_factory=dict)  # its names there, if others
    layers: tuple[int, int] | None = None  # of encoder and decoder, where they are stated
    attributes: Mapping[str, Any] = field(default_factory=dict)  # scalars of the file


def array(
    buffer: Buffer, dtype: np.dtype[Any], shape: tuple[int, ...], offset: int, what: str
) -> np.ndarray:
    """A read-only view of a part of a file. RuntimeError, which names `what`, where none fits."""
    size = math.prod(shape) * dtype.itemsize
    # Sizes beside one of zero count, too: numpy has no room for large ones.
    numbers = math.prod(max(n, 1) for n in shape)
    if len(shape) > MOST_DIMENSIONS or not numbers <= len(buffer) >= offset + size:
        raise RuntimeError(f"{what} has the shape {shape}, which its file cannot hold")
    view: np.ndarray = np.ndarray(shape, dtype, buffer, offset)
    view.flags.writeable = False
    return view
