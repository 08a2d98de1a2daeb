"""Hugging Face directories: config.json, model.safetensors (or shards) and tokenizer files."""

from __future__ import annotations

import itertools
import math
import re
import reprlib
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from . import weight_adapters
from .files import (
    MOST_DIMENSIONS,
    MOST_TEXT,
    SAFETENSORS,
    SAFETENSORS_INDEX,
    Contents,
    Files,
    Lazy,
    array,
    parse_json,
)
from .tokenizer_files import read_tokens

_DTYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_FETCH = "fetch the file again"
SETTINGS = {
    "suppress_ids": "suppress_tokens",
    "suppress_ids_begin": "begin_suppress_tokens",
    "lang_ids": "lang_to_id",
    "alignment_heads": "alignment_heads",
}
"""Keys of CTranslate2's config.json, and those of generation_config.json."""
_MOST_TOKENS = 1 << 20
_LANGUAGE = re.compile(r"<\|[a-z]{2,3}\|>")


def read(files: Files) -> Contents:
    """Read a WhisperForConditionalGeneration. RuntimeError where it is none or is damaged."""
    config = files.object("config.json")
    if config is None:
        raise RuntimeError(
            f"Unable to open file {files.describe('config.json')}: {SAFETENSORS} needs the "
            "config.json that was published with it"
        )
    if config.get("model_type", "whisper") != "whisper":
        raise RuntimeError(
            f"File {files.describe('config.json')} is not of a Whisper model: its model_type is "
            f"{reprlib.repr(config['model_type'])}"
        )
    where = files.describe("config.json")
    encoder_layers = small_number(config, "encoder_layers", where)
    decoder_layers = small_number(config, "decoder_layers", where)
    decoder_heads = small_number(config, "decoder_attention_heads", where)
    file, size, tensors = _read_tensors(files)
    entries = weight_adapters.fuse(
        tensors, weight_adapters.HUGGING_FACE, encoder_layers, decoder_layers
    )
    tokens = read_tokens(files, token_count(entries, file))
    projection = tensors.get("proj_out.weight")
    if projection is not None:
        entries["decoder/projection/weight"] = projection
    settings, settings_file = decoding_config(files, config, tokens, decoder_layers, decoder_heads)
    return Contents(
        entries=entries,
        encoder_heads=small_number(config, "encoder_attention_heads", where),
        decoder_heads=decoder_heads,
        tokens=tokens,
        config=settings,
        file=file,
        size=size,
        config_file=settings_file,
        config_keys=SETTINGS,
        layers=(encoder_layers, decoder_layers),
        attributes={"activation": config.get("activation_function", "gelu")},
    )


def decoding_config(
    files: Files, config: Mapping[str, Any], tokens: list[str], layers: int, heads: int
) -> tuple[dict[str, Any], str]:
    """The keys of CTranslate2's config.json, filled as its converter fills them, and their file."""
    generation = files.object("generation_config.json")
    name = "generation_config.json" if generation else "config.json"
    found = {key: (generation or config).get(own) for key, own in SETTINGS.items()}
    languages = found["lang_ids"]
    if languages is None:
        found["lang_ids"] = [i for i, token in enumerate(tokens) if _LANGUAGE.fullmatch(token)]
    elif isinstance(languages, dict):
        ids = list(languages.values())
        found["lang_ids"] = sorted(ids) if set(map(type, ids)) <= {int} else ids
    # Without a choice of heads, all of the upper half, as openai-whisper has it.
    if found["alignment_heads"] in (None, []):
        upper = itertools.product(range(layers // 2, layers), range(heads))
        found["alignment_heads"] = [list(pair) for pair in upper]
    settings = {key: value for key, value in found.items() if value is not None}
    return settings, files.describe(name)


def token_count(entries: Mapping[str, np.ndarray | Lazy], file: str) -> int:
    """Rows of the token embeddings, 0 without any. RuntimeError where they are implausible."""
    embeddings = entries.get("decoder/embeddings/weight")
    if embeddings is None:
        return 0
    if len(embeddings.shape) != 2 or 0 in embeddings.shape or embeddings.shape[0] > _MOST_TOKENS:
        raise RuntimeError(
            f"File {file} has token embeddings of the shape {embeddings.shape}, which should be "
            f"two sizes, the first at most {_MOST_TOKENS}: {_FETCH}"
        )
    return embeddings.shape[0]


def small_number(config: Mapping[str, Any], key: str, where: str) -> int:
    """The count `key` of a configuration. RuntimeError where it is none or implausible."""
    value = config.get(key)
    if type(value) is not int or not 0 < value < 1000:
        raise RuntimeError(
            f"File {where} should have a small number as {key!r}, not {reprlib.repr(value)}"
        )
    return value


def _read_tensors(files: Files) -> tuple[str, int, dict[str, np.ndarray]]:
    """The name of the (first) file, bytes of all, and tensors without the leading "model."."""
    names, there = [SAFETENSORS], set(files.names())
    if SAFETENSORS not in there:
        weight_map = (files.object(SAFETENSORS_INDEX) or {}).get("weight_map")
        if (
            not isinstance(weight_map, dict)
            or not weight_map
            or not all(isinstance(name, str) and name in there for name in weight_map.values())
        ):
            raise RuntimeError(
                f"File {files.describe(SAFETENSORS_INDEX)} does not name shards that are there: "
                "fetch the missing ones"
            )
        names = sorted(set(weight_map.values()))
    tensors: dict[str, np.ndarray] = {}
    size = 0
    for name in names:
        size += len(files.require(name))
        for tensor, value in _read_safetensors(files, name).items():
            tensors[tensor.removeprefix("model.")] = value
    return files.describe(names[0]), size, tensors


def _read_safetensors(files: Files, name: str) -> dict[str, np.ndarray]:
    """Views of a safetensors file: uint64 length, a JSON header of that length, the data.

    Read here because numpy has no bfloat16 for the library to return; it comes as uint16 bits.
    """
    buffer = files.require(name)
    where = files.describe(name)
    if len(buffer) < 8:
        raise RuntimeError(f"File {where} is incomplete: it has no header; {_FETCH}")
    start = 8 + struct.unpack_from("<Q", buffer)[0]
    if start > len(buffer):
        raise RuntimeError(f"File {where} is incomplete: its header goes past its end; {_FETCH}")
    if start > MOST_TEXT:
        raise RuntimeError(f"File {where} has a header of {start - 8} bytes: {_FETCH}")
    try:
        header = parse_json(str(buffer[8:start], "utf-8"))
    except (ValueError, RecursionError) as error:
        raise RuntimeError(f"File {where} has a damaged header ({error}): {_FETCH}") from error
    if not isinstance(header, dict):
        raise RuntimeError(f"File {where} has a damaged header, which is no object: {_FETCH}")
    header.pop("__metadata__", None)
    tensors = {}
    for tensor, entry in header.items():
        try:
            code = entry["dtype"]
            shape = tuple(entry["shape"])
            begin, end = entry["data_offsets"]
        except (TypeError, KeyError, ValueError):
            code, shape, begin, end = None, (), -1, -1
        numbers = (*shape, begin, end)
        if (
            type(code) is not str
            or len(shape) > MOST_DIMENSIONS
            or not all(type(n) is int and n >= 0 for n in numbers)
        ):
            raise RuntimeError(f"Tensor '{tensor}' of file {where} is ill described: {_FETCH}")
        if code not in _DTYPES:
            if code in ("I64", "I32"):  # position ids and the like, which are no weights
                continue
            raise RuntimeError(
                f"Tensor '{tensor}' of file {where} has the data type {code}: float32, float16 "
                "and bfloat16 can be read"
            )
        dtype = np.dtype(_DTYPES[code])
        if end > len(buffer) - start or end - begin != math.prod(shape) * dtype.itemsize:
            raise RuntimeError(
                f"Tensor '{tensor}' of file {where} is incomplete or has another size than its "
                f"shape {shape}: {_FETCH}"
            )
        what = f"Tensor '{tensor}' of file {where}"
        tensors[tensor] = array(buffer, dtype, shape, start + begin, what)
    return tensors
