"""CTranslate2's model directories: model.bin, vocabulary.json or .txt, config.json.

model.bin is little-endian: uint32 version; the name of the specification and uint32 revision (from
version 2 on); uint32 number of variables; for each its name, uint8 rank, uint32 per dimension,
uint8 type and uint32 bytes (from version 4 on; uint8 width and uint32 elements before), the data;
then uint32 number of aliases (from version 3 on), each alias and the aliased name. A string is
uint16 length, its terminating NUL included, and the characters.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from .files import Buffer, Contents, Files, array

MODEL = "model.bin"
_VERSION = 6
_REVISION = 3
_SPECIFICATIONS = frozenset(
    ("", "TransformerBase", "TransformerBig", "TransformerSpec", "TransformerDecoderSpec")
    + ("TransformerEncoderSpec", "WhisperSpec", "Wav2Vec2Spec", "Wav2Vec2BertSpec")
)
_DTYPES = tuple(np.dtype(name) for name in ("<f4", "i1", "<i2", "<i4", "<f2", "<u2"))
_MOST_VARIABLES = 1 << 16  # large-v3 has 2,000
_DTYPES_BY_WIDTH = {4: _DTYPES[0], 2: _DTYPES[2], 1: _DTYPES[1]}
_CONVERT = "fetch it again, or convert the model again with ct2-transformers-converter"


class _Cursor:
    """Reads values from the start of the file on; past its end, RuntimeError."""

    def __init__(self, buffer: Buffer, file: str) -> None:
        self.buffer = buffer
        self.file = file
        self.position = 0

    def take(self, size: int, kind: str) -> int:
        """Position of the next `size` bytes, which are passed over."""
        start = self.position
        if size > len(self.buffer) - start:
            raise RuntimeError(
                f"File {self.file} is incomplete: failed to read a {kind} of size {size} at "
                f"position {start}; {_CONVERT}"
            )
        self.position += size
        return start

    def unpack(self, codes: str) -> tuple[int, ...]:
        codes = "<" + codes
        start = self.take(struct.calcsize(codes), "value")
        return struct.unpack_from(codes, self.buffer, start)

    def value(self, code: str) -> int:
        return self.unpack(code)[0]

    def string(self) -> str:
        size = self.value("H")
        if size == 0:
            raise RuntimeError(
                f"Invalid string length in {self.file} at position {self.position}: the file is "
                f"damaged; {_CONVERT}"
            )
        start = self.take(size, "string")
        return bytes(self.buffer[start : start + size - 1]).decode("utf-8", "backslashreplace")


def read(files: Files) -> Contents:
    """Read a model directory. RuntimeError or ValueError, as the reference has them, if damaged."""
    remedy = "the directory holds no model that CTranslate2, transformers or openai-whisper saved"
    cursor = _Cursor(files.require(MODEL, remedy), files.describe(MODEL))
    version = cursor.value("I")
    _check_version("binary version", version, _VERSION, cursor.file)
    specification, revision = (cursor.string(), cursor.value("I")) if version >= 2 else ("", 1)
    if specification not in _SPECIFICATIONS:
        raise ValueError(f"Unknown model {specification} in file {cursor.file}")
    if specification != "WhisperSpec":
        raise ValueError(
            f"File {cursor.file} is not a Whisper model: its specification is {specification!r}"
        )
    _check_version("revision", revision, _REVISION, cursor.file)
    variables = _read_variables(cursor, version)
    config = files.object("config.json") or {}
    attributes = {name: value.item() for name, value in variables.items() if value.ndim == 0}
    return Contents(
        entries={
            name: value
            for name, value in variables.items()
            if value.ndim > 0 or name.endswith("_scale")
        },
        encoder_heads=_heads(attributes, "encoder/num_heads", cursor.file),
        decoder_heads=_heads(attributes, "decoder/num_heads", cursor.file),
        tokens=read_vocabulary(files),
        config={key: value for key, value in config.items() if value is not None},
        file=cursor.file,
        size=len(cursor.buffer),
        config_file=files.describe("config.json"),
        attributes=attributes,
    )


def read_vocabulary(files: Files) -> list[str]:
    """Tokens of vocabulary.json, or of vocabulary.txt, one a line. RuntimeError without either."""
    tokens: Any = files.json("vocabulary.json")
    if tokens is not None:
        if not isinstance(tokens, list) or not set(map(type, tokens)) <= {str}:
            raise RuntimeError(
                f"File {files.describe('vocabulary.json')} should hold a list of strings"
            )
        return tokens
    text = files.text("vocabulary.txt")
    if text is None:
        raise RuntimeError(
            f"Cannot load the vocabulary from the model directory '{files.path}': it has neither "
            "vocabulary.json nor vocabulary.txt; copy the one that belongs to the model there"
        )
    lines = text.split("\n")
    if lines[-1] == "":
        del lines[-1]
    # Some tokens end with a carriage return: it belongs to the line only if all lines have it.
    return [line[:-1] for line in lines] if all(line.endswith("\r") for line in lines) else lines


def _heads(attributes: Mapping[str, float], name: str, file: str) -> int:
    """A number of attention heads, which the reference takes to be 8 where it is not stated."""
    value = attributes.get(name, 8)
    if not 1 <= value < 1000 or value != int(value):
        raise RuntimeError(
            f"Variable '{name}' of file {file} should be a number of attention heads, not "
            f"{value!r}; {_CONVERT}"
        )
    return int(value)


def _check_version(kind: str, found: int, known: int, file: str) -> None:
    if found > known:
        raise RuntimeError(
            f"Unsupported model {kind} in file {file}: it is v{found}, and v{known} or below can "
            "be read. The model was converted by a later CTranslate2, or the file is damaged"
        )


def _count(cursor: _Cursor, kind: str) -> int:
    count = cursor.value("I")
    if count > _MOST_VARIABLES:
        raise RuntimeError(
            f"File {cursor.file} says that it has {count} {kind}, more than any model: the file is "
            f"damaged; {_CONVERT}"
        )
    return count


def _read_variables(cursor: _Cursor, version: int) -> dict[str, np.ndarray]:
    variables: dict[str, np.ndarray] = {}
    known = dict(enumerate(_DTYPES)) if version >= 4 else _DTYPES_BY_WIDTH
    for _ in range(_count(cursor, "variables")):
        name = cursor.string()
        *sizes, code, count = cursor.unpack(f"{cursor.value('B')}IBI")
        shape = tuple(sizes)
        if code not in known:
            raise RuntimeError(
                f"Variable '{name}' of file {cursor.file} has the unknown data type {code}: the "
                f"file is damaged; {_CONVERT}"
            )
        dtype = known[code]
        size = count if version >= 4 else count * dtype.itemsize
        if len(shape) > 4 or math.prod(shape) * dtype.itemsize != size:
            raise RuntimeError(
                f"Variable '{name}' of file {cursor.file} has an invalid payload size: "
                f"{size} bytes for the shape {shape} of {dtype}; {_CONVERT}"
            )
        start = cursor.take(size, f"buffer of variable '{name}'")
        what = f"Variable '{name}' of file {cursor.file}"
        variables.setdefault(name, array(cursor.buffer, dtype, shape, start, what))
    for _ in range(_count(cursor, "aliases") if version >= 3 else 0):
        alias, name = cursor.string(), cursor.string()
        for suffix in ("", "_scale"):
            if name + suffix in variables:
                variables.setdefault(alias + suffix, variables[name + suffix])
    return variables
