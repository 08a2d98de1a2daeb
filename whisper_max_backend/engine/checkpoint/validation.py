"""Whether a file's weights are those of a Whisper model, and complete."""

from __future__ import annotations

import functools
import math
import reprlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from .dimensions import Dimensions, expected_shapes
from .files import Contents, Lazy

_GELU = 3  # ctranslate2.specs.common_spec.Activation.GELU
_LIMITS = {
    "n_mels": 1 << 10,
    "n_audio_ctx": 1 << 14,
    "n_audio_state": 1 << 14,
    "n_audio_layer": 1 << 8,
    "n_vocab": 1 << 20,
    "n_text_ctx": 1 << 12,
    "n_text_state": 1 << 14,
    "n_text_layer": 1 << 8,
}
"""Several times the sizes of large-v3, so that what is made of a damaged file stays bounded."""
_SHARED = 1 << 27
"""Bytes that weights may take beyond their file: equal ones are written once and used twice, and
biases of zeros may be left out."""
_PROJECTION = "decoder/projection/weight"


class MissingWeight(RuntimeError, IndexError):
    """A weight that every Whisper has is not in the file; the reference raises IndexError."""


def check_attributes(contents: Contents) -> None:
    """Refuse what is saved as Whisper but is another network."""
    expected = {
        "activation": ("gelu",),
        "decoder/activation": (_GELU,),
        "decoder/pre_norm": (1,),
        "decoder/alibi": (0,),
        "decoder/scale_embeddings": (0,),
        "decoder/start_from_zero_embedding": (0,),
    }
    for name, allowed in expected.items():
        value = contents.attributes.get(name, allowed[0])
        if value not in allowed:
            raise RuntimeError(
                f"File {contents.file} is not of a Whisper model as OpenAI made it: {name} is "
                f"{reprlib.repr(value)} and should be {allowed[0]!r}"
            )


def read_dimensions(contents: Contents, entries: Mapping[str, np.ndarray | Lazy]) -> Dimensions:
    def shape(name: str, rank: int) -> tuple[int, ...]:
        if name not in entries:
            raise MissingWeight(_absent(name, contents.file))
        found = entries[name].shape
        if len(found) != rank or 0 in found:
            raise RuntimeError(_misfit(name, found, f"{rank} dimensions, none of them 0"))
        return found

    def _misfit(name: str, found: tuple[int, ...], expected: str) -> str:
        return f"Variable {name} of file {contents.file} has the shape {found}, not {expected}"

    n_audio_state, n_mels, _ = shape("encoder/conv1/weight", 3)
    n_vocab, n_text_state = shape("decoder/embeddings/weight", 2)
    encoder_layers, decoder_layers = contents.layers or (
        _layer_count(entries, "encoder"),
        _layer_count(entries, "decoder"),
    )
    dimensions = Dimensions(
        n_mels=n_mels,
        n_audio_ctx=shape("encoder/position_encodings/encodings", 2)[0],
        n_audio_state=n_audio_state,
        n_audio_head=contents.encoder_heads,
        n_audio_layer=encoder_layers,
        n_vocab=n_vocab,
        n_text_ctx=shape("decoder/position_encodings/encodings", 2)[0],
        n_text_state=n_text_state,
        n_text_head=contents.decoder_heads,
        n_text_layer=decoder_layers,
    )
    for size, most in _LIMITS.items():
        found = getattr(dimensions, size)
        if found > most:
            raise RuntimeError(
                f"File {contents.file} has {size} {found}, and {most} is the most that can be "
                "loaded: the file is damaged, or the model is not Whisper"
            )
    for state, heads in (
        (n_audio_state, dimensions.n_audio_head),
        (n_text_state, dimensions.n_text_head),
    ):
        if heads < 1 or state % heads:
            raise RuntimeError(
                f"File {contents.file} has a state of {state} and {heads} attention heads, which "
                "do not divide it: the file is damaged, or the model is not Whisper"
            )
    return dimensions


def _layer_count(entries: Mapping[str, Any], side: str) -> int:
    """Layers numbered from 0 on without a gap."""
    found = {name.split("/")[1] for name in entries if name.startswith(f"{side}/layer_")}
    count = 0
    while f"layer_{count}" in found:
        count += 1
    return count


def check_weights(entries: dict[str, np.ndarray | Lazy], dimensions: Dimensions, file: str) -> None:
    """Keep exactly a Whisper's weights, each of its shape; zeros for biases that are not there."""
    found = dict(entries)
    entries.clear()
    for name, shape in expected_shapes(dimensions).items():
        entry = found.get(name)
        if entry is None and name.endswith("/bias"):
            dtype = np.dtype(np.float32)
            entry = Lazy(shape, dtype, functools.partial(np.zeros, shape, dtype))
        if entry is None:
            raise MissingWeight(_absent(name, file))
        if entry.shape != shape:
            raise RuntimeError(
                f"Variable {name} of file {file} has the shape {entry.shape}, but {shape} fits "
                f"the other weights: the file is damaged or not of a Whisper model"
            )
        quantized = entry.dtype.kind == "i"
        if quantized and (not name.endswith("/weight") or entry.dtype.itemsize > 2):
            raise RuntimeError(
                f"Variable {name} of file {file} has the wrong data type {entry.dtype}"
            )
        entries[name] = entry
        if quantized:
            _check_scale(entries, found, name, file)
    if not _tied(found, entries):
        raise RuntimeError(
            f"File {file} has an output projection of its own ({_PROJECTION}), where Whisper uses "
            'the token embeddings: load it with the backend "ctranslate2"'
        )


def check_size(entries: Mapping[str, np.ndarray | Lazy], contents: Contents) -> None:
    """Refuse a small file of many weights that are the same numbers."""
    total = sum(math.prod(entry.shape) * entry.dtype.itemsize for entry in entries.values())
    if total > contents.size + _SHARED:
        raise RuntimeError(
            f"File {contents.file} has {contents.size} bytes for weights that take {total}: most "
            "of them are the same numbers, so the file is damaged or not of a Whisper model"
        )


def _check_scale(
    entries: dict[str, np.ndarray | Lazy],
    found: Mapping[str, np.ndarray | Lazy],
    name: str,
    file: str,
) -> None:
    """Take over the scale of a quantised weight."""
    scale = found.get(f"{name}_scale")
    weight = entries[name]
    if scale is None:
        if weight.dtype == np.int16:
            return
        raise RuntimeError(_absent(f"{name}_scale", file))
    rows = weight.shape[:1]
    if scale.dtype != np.float32 or scale.shape not in (
        (rows,) if weight.dtype == np.int8 else ((), rows)
    ):
        raise RuntimeError(
            f"Variable {name}_scale of file {file} should be float32 of shape {rows}, not "
            f"{scale.dtype} of shape {scale.shape}"
        )
    entries[f"{name}_scale"] = scale


def _tied(found: Mapping[str, np.ndarray | Lazy], entries: Mapping[str, Any]) -> bool:
    """Whether the output projection is the embeddings: one array, or two equal ones."""
    projection, embeddings = found.get(_PROJECTION), entries["decoder/embeddings/weight"]
    if "decoder/projection/bias" in found:
        return False
    if projection is None or projection is embeddings:
        return True
    return np.array_equal(np.asarray(projection), np.asarray(embeddings))


def _absent(name: str, file: str) -> str:
    return (
        f"variable {name} not found in file {file}: the file is damaged or not of a Whisper "
        "model; fetch or convert it again"
    )
