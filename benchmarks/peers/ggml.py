"""A model as whisper.cpp reads it.

Little-endian. The magic number; eleven int32 of dimensions, the last saying what matrices are
kept in; the mel filters, with their two sizes; the text tokens, each with its length in bytes; at
last the tensors: int32 number of dimensions, length of the name, type; the dimensions, last first;
name; data.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from faster_whisper.feature_extractor import FeatureExtractor
from tokenizers import Tokenizer

from benchmarks.peers import Model
from benchmarks.peers.converted import openai_weights
from whisper_max_backend.engine.checkpoint.load import load_checkpoint

_MAGIC = 0x67676D6C
_F32, _F16, _Q8_0 = 0, 1, 8
_FILE_TYPES = {"f16": 1, "q8_0": 2007}
"""A file's type; for the quantised one with the format's version, 2, in the thousands."""
_BLOCK = 32


def save(model: Model, storage: str, path: Path) -> None:
    """Write the model with matrices in `storage`: "f16" or "q8_0"."""
    checkpoint = load_checkpoint(model.folder)
    d = checkpoint.dimensions
    with open(path, "wb") as file:
        sizes = (
            *(d.n_vocab, d.n_audio_ctx, d.n_audio_state, d.n_audio_head, d.n_audio_layer),
            *(d.n_text_ctx, d.n_text_state, d.n_text_head, d.n_text_layer, d.n_mels),
        )
        file.write(struct.pack("<12i", _MAGIC, *sizes, _FILE_TYPES[storage]))
        filters = FeatureExtractor(feature_size=d.n_mels).mel_filters.astype("<f4")
        file.write(struct.pack("<2i", *filters.shape) + filters.tobytes())
        tokens = _text_tokens(model.folder / "tokenizer.json")
        file.write(struct.pack("<i", len(tokens)))
        for token in tokens:
            file.write(struct.pack("<i", len(token)) + token)
        for name, values in openai_weights(model).items():
            _write(file, name, values, storage)


def _write(file: BinaryIO, name: str, values: np.ndarray, storage: str) -> None:
    kind = _F32
    if values.ndim > 1 and "positional" not in name:
        kind = _Q8_0 if storage == "q8_0" and values.ndim == 2 else _F16
    if name in ("encoder.conv1.bias", "encoder.conv2.bias"):
        values = values[:, None]
    file.write(struct.pack("<3i", values.ndim, len(name), kind))
    file.write(struct.pack(f"<{values.ndim}i", *reversed(values.shape)) + name.encode())
    if kind == _Q8_0:
        file.write(_blocks_of_bytes(values))
    else:
        file.write(values.astype("<f2" if kind == _F16 else "<f4").tobytes())


def _blocks_of_bytes(values: np.ndarray) -> bytes:
    """Blocks of 32 numbers: a float16 scale and so many int8."""
    blocks = values.reshape(-1, _BLOCK)
    scales = np.abs(blocks).max(axis=1, keepdims=True) / np.float32(127)
    inverse = np.divide(1, scales, out=np.zeros_like(scales), where=scales > 0)
    made = np.empty(len(blocks), [("scale", "<f2"), ("bytes", "i1", _BLOCK)])
    made["scale"] = scales[:, 0]
    made["bytes"] = np.rint(blocks * inverse)
    return made.tobytes()


def _text_tokens(tokenizer: Path) -> list[bytes]:
    """The bytes of the tokens below <|endoftext|>; GPT-2's alphabet stands for bytes."""
    loaded: Any = Tokenizer.from_file(str(tokenizer))
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    alphabet = {chr(byte): byte for byte in plain}
    others = (byte for byte in range(256) if byte not in plain)
    alphabet |= {chr(256 + index): byte for index, byte in enumerate(others)}
    end = loaded.token_to_id("<|endoftext|>")
    return [bytes(alphabet[char] for char in loaded.id_to_token(index)) for index in range(end)]
