"""Changes to the files of an input that keep most of their structure, so that they get deep.

libFuzzer calls `mutate` one to five times for an input. Bytes are changed by libFuzzer itself.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Sequence
from typing import Any

from compat_tests.fuzz import model_bin, ogg, safetensors_file, torch_file
from compat_tests.fuzz.bundle import pack, unpack
from compat_tests.fuzz.values import NUMBERS, Change, Random

NAMES = (
    *("model.bin", "vocabulary.json", "vocabulary.txt", "config.json", "generation_config.json"),
    *("model.safetensors", "model.safetensors.index.json", "model-0-of-2.safetensors"),
    *("tokenizer.json", "vocab.json", "added_tokens.json", "tiny.pt", "other.pt"),
    *("gpt2.tiktoken", "multilingual.tiktoken"),
)
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0.5, -0.0, 1e308, math.nan, math.inf, -math.inf, -1, -(2**31), 10**30),
    *("", "0", "\0", "\ud800", "<|0.00|>", "<|endoftext|>", "<|startoftranscript|>", "x" * 1000),
    *([], {}, [[]], [0], [-1], [[0, 0]], [[99, 0]], [[0, 0, 0]], {"": None}),
    *("whisper", "gelu", "F32", "F16", "BF16", "I64", "../config.json", "/dev/zero"),
)
_STRUCTURED: dict[str, Change] = {
    ".bin": model_bin.change,
    ".pt": torch_file.change,
    ".ogg": ogg.change,
    ".opus": ogg.change,
}


def mutate(
    data: bytes,
    max_size: int,
    seed: int,
    sound: Sequence[bytes],
    raw: Callable[[bytes, int], bytes],
) -> bytes:
    """Change one file of a bundle, or of a `sound` one, lest all inputs be refused early.

    `raw` is libFuzzer's own mutation of bytes.
    """
    chance = random.Random(seed)
    files = unpack(data)
    if not files or chance.random() < 0.3:
        files = unpack(chance.choice(sound))
    assert files
    name = chance.choice(sorted(files))
    if chance.random() < 0.03 and len(files) > 1:
        _rearrange(files, name, chance)
    else:
        files[name] = _changed(name, files[name], chance, raw)
    changed = pack(files)
    return changed if len(changed) <= max_size else data


def _rearrange(files: dict[str, bytes], name: str, chance: Random) -> None:
    """Remove, rename, copy or swap files."""
    other = chance.choice(NAMES)
    kind = chance.randrange(4)
    if kind == 0:
        del files[name]
    elif kind == 1:
        files[other] = files.pop(name)
    elif kind == 2:
        files[other] = files[name]
    else:
        third = chance.choice(sorted(files))
        files[name], files[third] = files[third], files[name]


def _changed(
    name: str, content: bytes, chance: Random, raw: Callable[[bytes, int], bytes]
) -> bytes:
    extension = name[name.rfind(".") :]
    kind = chance.random()
    if kind < 0.15:
        return raw(content, len(content) + 64)
    if kind < 0.25:
        return _cut(content, chance)
    try:
        if extension == ".json":
            return _change_json(content, chance)
        if extension == ".safetensors":
            return safetensors_file.change(content, chance, change_value)
        if extension in _STRUCTURED:
            return _STRUCTURED[extension](content, chance)
    except Exception:  # an earlier change damaged it
        pass
    return _overwrite(content, chance)


def _cut(content: bytes, chance: Random) -> bytes:
    """Remove, repeat or move a stretch."""
    start, middle, end = sorted(chance.randrange(len(content) + 1) for _ in range(3))
    return chance.choice(
        (
            lambda: content[:start],
            lambda: content[:start] + content[middle:],
            lambda: content[:middle] + content[start:],
            lambda: content[:start] + content[middle:end] + content[start:middle] + content[end:],
        )
    )()


def _overwrite(content: bytes, chance: Random) -> bytes:
    """Put a number that is often a limit somewhere, more often near the start."""
    size = chance.choice((1, 2, 4, 8))
    number = chance.choice(NUMBERS) % (1 << 8 * size)
    reach = chance.choice((64, 512, len(content)))
    start = chance.randrange(max(1, min(reach, len(content))))
    encoded = number.to_bytes(size, "little")
    if chance.random() < 0.5:
        encoded = encoded[::-1]
    return content[:start] + encoded + content[start + size :]


def _change_json(content: bytes, chance: Random) -> bytes:
    kind = chance.random()
    if kind < 0.02:
        return chance.choice((b"[" * 100_000, b'{"a":' * 50_000, b"9" * 5000, b"", b"null", b"[]"))
    if kind < 0.04:
        return b"\xef\xbb\xbf" + content
    if kind < 0.05:
        return content.decode().encode("utf-16")
    value = change_value(json.loads(content), chance)
    return json.dumps(value, ensure_ascii=chance.random() < 0.9).encode("utf-8", "surrogatepass")


def change_value(value: Any, chance: Random) -> Any:
    """Change a JSON value somewhere inside; lists and objects are changed in place."""
    if not isinstance(value, dict | list) or not value or chance.random() < 0.05:
        return _other_value(value, chance)
    keys = list(value) if isinstance(value, dict) else range(len(value))
    key = chance.choice(keys)
    kind = chance.random()
    if isinstance(value[key], dict | list) and kind < 0.7:
        value[key] = change_value(value[key], chance)
    elif kind < 0.85:
        value[key] = _other_value(value[key], chance)
    elif kind < 0.9:
        del value[key]
    elif kind < 0.95:
        other = chance.choice(keys)
        value[key], value[other] = value[other], value[key]
    elif isinstance(value, dict):
        value[chance.choice([str(v) for v in _VALUES])] = value[key]
    else:
        value.insert(chance.randrange(len(value)), value[key])
    return value


def _other_value(value: Any, chance: Random) -> Any:
    if type(value) is int and chance.random() < 0.4:
        return value + chance.choice((-1, 1, -value - 1, 2**31, 2**32))
    return chance.choice(_VALUES if chance.random() < 0.5 else NUMBERS)
