"""Several named files as the one string of bytes that libFuzzer works on."""

from __future__ import annotations

import struct
from collections.abc import Mapping

_HEAD = struct.Struct("<HI")  # length of the name, length of the content


def pack(files: Mapping[str, bytes]) -> bytes:
    """Each file as a head, its name and its content."""
    parts = []
    for name, content in files.items():
        encoded = name.encode()
        parts += [_HEAD.pack(len(encoded), len(content)), encoded, content]
    return b"".join(parts)


def unpack(data: bytes) -> dict[str, bytes] | None:
    """The files, or None where `data` is no such string."""
    files = {}
    position = 0
    while position < len(data):
        if len(data) - position < _HEAD.size:
            return None
        name_size, size = _HEAD.unpack_from(data, position)
        start = position + _HEAD.size + name_size
        position = start + size
        if position > len(data):
            return None
        try:
            name = data[start - name_size : start].decode()
        except UnicodeDecodeError:
            return None
        files[name] = data[start:position]
    return files
