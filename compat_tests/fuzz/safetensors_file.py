"""Changes to a safetensors file: its header is JSON, and its offsets can be made to fit."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

from compat_tests.fuzz.values import NUMBERS, Random

_WIDTHS = {"F32": 4, "F16": 2, "BF16": 2, "I64": 8}


def change(data: bytes, chance: Random, change_value: Callable[[Any, Random], Any]) -> bytes:
    """Change the header; `change_value` changes a JSON value."""
    size = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    if chance.random() < 0.6:
        _change_tensor(header, len(body), chance)
    else:
        header = change_value(header, chance)
    text = json.dumps(header).encode()
    size = len(text)
    if chance.random() < 0.05:
        size = chance.choice((*NUMBERS, size - 1, size + 1)) % 2**64
    return size.to_bytes(8, "little") + text + body


def _change_tensor(header: dict[str, Any], available: int, chance: Random) -> None:
    """Another type or shape for a tensor, with offsets that fit where that is possible."""
    tensor = chance.choice([value for value in header.values() if "shape" in value])
    shape = tensor["shape"]
    kind = chance.randrange(4)
    if kind == 0:
        tensor["dtype"] = chance.choice([*_WIDTHS, "F64", "", 0, None, []])
    elif kind == 1:
        tensor["shape"] = chance.choice((shape[::-1], shape[1:], [*shape, 1], [*shape, 0], []))
    elif shape:
        shape[chance.randrange(len(shape))] = chance.choice(NUMBERS)
    try:
        size = math.prod(tensor["shape"]) * _WIDTHS.get(tensor["dtype"], 1)
        begin = tensor["data_offsets"][0]
    except TypeError:
        return
    tensor["data_offsets"] = [begin, begin + size] if begin + size <= available else [0, size]
