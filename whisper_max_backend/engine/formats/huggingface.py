"""Hugging Face directories: config.json, model.safetensors (or shards) and tokenizer files."""

from __future__ import annotations

import itertools
import json
import math
import re
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from whisper_max_backend.engine.formats import split
from whisper_max_backend.engine.formats.source import Contents, Files, array
from whisper_max_backend.engine.formats.tokens import read_tokens

MODEL = "model.safetensors"
INDEX = "model.safetensors.index.json"
_DTYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_FETCH = "fetch the file again"
_LANGUAGE = re.compile(r"<\|[a-z]{2,3}\|>")


def read(files: Files) -> Contents:
    """Read a WhisperForConditionalGeneration. RuntimeError where it is none or is damaged."""
    config = files.object("config.json")
    if config is None:
        raise RuntimeError(
            f"Unable to open file {files.describe('config.json')}: {MODEL} needs the config.json "
            "that was published with it"
        )
    if config.get("model_type", "whisper") != "whisper":
        raise RuntimeError(
            f"File {files.describe('config.json')} is not of a Whisper model: its model_type is "
            f"{config['model_type']!r}"
        )
    where = files.describe("config.json")
    encoder_layers = small_number(config, "encoder_layers", where)
    decoder_layers = small_number(config, "decoder_layers", where)
    decoder_heads = small_number(config, "decoder_attention_heads", where)
    file, tensors = _read_tensors(files)
    entries = split.fuse(tensors, split.HUGGING_FACE, encoder_layers, decoder_layers)
    embeddings = entries.get("decoder/embeddings/weight")
    tokens = read_tokens(files, embeddings.shape[0] if embeddings is not None else 0)
    projection = tensors.get("proj_out.weight")
    if projection is not None:
        entries["decoder/projection/weight"] = projection
    return Contents(
        entries=entries,
        encoder_heads=small_number(config, "encoder_attention_heads", where),
        decoder_heads=decoder_heads,
        tokens=tokens,
        config=decoding_config(files, config, tokens, decoder_layers, decoder_heads),
        file=file,
        layers=(encoder_layers, decoder_layers),
        attributes={"activation": config.get("activation_function", "gelu")},
    )


def decoding_config(
    files: Files, config: Mapping[str, Any], tokens: list[str], layers: int, heads: int
) -> dict[str, Any]:
    """The keys of CTranslate2's config.json, filled as its converter fills them."""
    generation = files.object("generation_config.json") or config
    languages = generation.get("lang_to_id")
    if isinstance(languages, dict):
        lang_ids = sorted(languages.values())
    else:
        lang_ids = [i for i, token in enumerate(tokens) if _LANGUAGE.fullmatch(token)]
    found: dict[str, Any] = {
        "suppress_ids": generation.get("suppress_tokens"),
        "suppress_ids_begin": generation.get("begin_suppress_tokens"),
        "lang_ids": lang_ids,
        # Without a choice of heads, all of the upper half, as openai-whisper has it.
        "alignment_heads": generation.get("alignment_heads")
        or [list(pair) for pair in itertools.product(range(layers // 2, layers), range(heads))],
    }
    return {key: value for key, value in found.items() if value is not None}


def small_number(config: Mapping[str, Any], key: str, where: str) -> int:
    """The count `key` of a configuration. RuntimeError where it is none or implausible."""
    value = config.get(key)
    if not isinstance(value, int) or not 0 < value < 1000:
        raise RuntimeError(f"File {where} should have a small number as {key!r}, not {value!r}")
    return value


def _read_tensors(files: Files) -> tuple[str, dict[str, np.ndarray]]:
    """Tensors by name, without the leading "model.", and the name of the (first) file."""
    names = [MODEL]
    if MODEL not in files.names():
        weight_map = (files.object(INDEX) or {}).get("weight_map")
        if not isinstance(weight_map, dict) or not all(
            isinstance(name, str) and name in files.names() for name in weight_map.values()
        ):
            raise RuntimeError(
                f"File {files.describe(INDEX)} does not name shards that are there: fetch the "
                "missing ones"
            )
        names = sorted(set(weight_map.values()))
    tensors: dict[str, np.ndarray] = {}
    for name in names:
        for tensor, value in _read_safetensors(files, name).items():
            tensors[tensor.removeprefix("model.")] = value
    return files.describe(names[0]), tensors


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
    try:
        header = json.loads(str(buffer[8:start], "utf-8"))
        header.pop("__metadata__", None)
        items = list(header.items())
    except (ValueError, AttributeError, RecursionError) as error:
        raise RuntimeError(f"File {where} has a damaged header ({error}): {_FETCH}") from error
    tensors = {}
    for tensor, entry in items:
        try:
            code = entry["dtype"]
            shape = tuple(entry["shape"])
            begin, end = entry["data_offsets"]
            sound = all(isinstance(n, int) and n >= 0 for n in (*shape, begin, end))
        except (TypeError, KeyError, ValueError):
            sound = False
        if not sound:
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
        tensors[tensor] = array(buffer, dtype, shape, start + begin)
    return tensors
