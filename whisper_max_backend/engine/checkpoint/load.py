"""A model's weights, dimensions, vocabulary and configuration, whatever format they came in.

The names of the weights are those of CTranslate2's model.bin, so that a CTranslate2 directory,
the format faster-whisper uses, is a matter of memory-mapping. Other formats are fused into it.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
import os
import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import ctranslate2, huggingface, openai
from .bfloat16 import widened
from .decoding_config import checked_config
from .files import Contents, Files, Lazy, Weights
from .vocabulary import Vocabulary

logger = logging.getLogger("whisper_max_backend")

_INT16_SCALE = 1000.0  # of CTranslate2's first int16 models, which do not store it
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


@dataclass(frozen=True)
class Dimensions:
    """Sizes of a model, under openai-whisper's names (ModelDimensions)."""

    n_mels: int
    n_audio_ctx: int
    n_audio_state: int
    n_audio_head: int
    n_audio_layer: int
    n_vocab: int
    n_text_ctx: int
    n_text_state: int
    n_text_head: int
    n_text_layer: int


@dataclass(frozen=True)
class Checkpoint:
    """A model as it was saved. `dense` gives its weights as float32."""

    dimensions: Dimensions
    weights: Mapping[str, np.ndarray]
    vocabulary: Vocabulary
    config: Mapping[str, Any]
    dtype: str

    def weight_names(self) -> Iterator[str]:
        """Names of the weights proper, without the scales of quantised ones."""
        return (name for name in self.weights if not name.endswith("_scale"))

    def in_memory(self) -> Checkpoint:
        """The same model, which no longer reads the files that it came from."""
        copies = {name: np.array(values) for name, values in self.weights.items()}
        return dataclasses.replace(self, weights=copies)


def load_checkpoint(
    path: str | os.PathLike[str], files: Mapping[str, Any] | None = None
) -> Checkpoint:
    """Open the model in directory `path`, or in `files` (contents by name, as ctranslate2 takes).

    Reads CTranslate2, Hugging Face (safetensors) and openai-whisper (.pt) models; `path` may also
    be a .pt file. Weights are views of the files until they are used.

    Raises RuntimeError (ValueError for an unknown kind of model) naming the file where one is
    absent, damaged or not of a Whisper model, and TypeError where `files` is no mapping.
    """
    path = os.fspath(path)
    if files is None and path.endswith(".pt") and os.path.isfile(path):
        folder, name = os.path.split(path)
        return _finish(openai.read(Files(folder or "."), name), path)
    source = Files(path, files)
    names = source.names()
    checkpoints = [name for name in names if name.endswith(".pt")]
    if ctranslate2.MODEL in names:
        contents = ctranslate2.read(source)
    elif huggingface.MODEL in names or huggingface.INDEX in names:
        contents = huggingface.read(source)
    elif len(checkpoints) == 1:
        contents = openai.read(source, checkpoints[0])
    elif checkpoints:
        raise RuntimeError(
            f"The model directory '{path}' holds several checkpoints: give the path of one of "
            f"{', '.join(checkpoints)}"
        )
    else:
        contents = ctranslate2.read(source)
    return _finish(contents, path)


def dense(weights: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """The weight as a contiguous, aligned float32 array: converted or dequantised as needed.

    Quantised weights are divided by their scale: one a row of int8, one in all for int16, as
    CTranslate2's `Dequantize` does. KeyError where there is no such weight.
    """
    values = weights[name]
    if values.dtype == np.uint16:
        return widened(values)
    if values.dtype.kind == "f":
        return np.require(values, np.float32, ["C", "ALIGNED"])
    stored = weights.get(name + "_scale")
    scale = np.float32(_INT16_SCALE) if stored is None else np.asarray(stored, np.float32)
    inverse = np.float32(1) / scale
    if inverse.ndim:
        inverse = inverse.reshape(-1, *[1] * (values.ndim - 1))
    product: np.ndarray = np.multiply(values, inverse, dtype=np.float32)
    return product


def _finish(contents: Contents, path: str) -> Checkpoint:
    """Check what was read and complete it."""
    file = contents.file
    _check_attributes(contents)
    vocabulary = Vocabulary(contents.tokens)
    missing = vocabulary.missing()
    if missing:
        raise RuntimeError(
            f"The vocabulary of the model '{path}' is not Whisper's: it lacks "
            f"{', '.join(missing)}. Put the vocabulary that belongs to the model there"
        )
    entries = dict(contents.entries)
    dimensions = _dimensions(contents, entries)
    _check_weights(entries, dimensions, file)
    _check_size(entries, contents)
    rows = dimensions.n_vocab
    if vocabulary.size > rows:
        raise RuntimeError(
            f"The vocabulary of the model '{path}' has {vocabulary.size} tokens, but file {file} "
            f"has embeddings for {rows}: put the vocabulary that belongs to the model there"
        )
    if vocabulary.size < rows:
        logger.warning(
            "The vocabulary of the model '%s' has %d tokens and its embeddings %d: the last ones "
            "have no text",
            *(path, vocabulary.size, rows),
        )
    embeddings, norm = entries["decoder/embeddings/weight"], entries["encoder/layer_norm/gamma"]
    return Checkpoint(
        dimensions=dimensions,
        weights=Weights(entries),
        vocabulary=vocabulary,
        config=checked_config(contents, dimensions, vocabulary.size),
        dtype=_precision(embeddings.dtype, norm.dtype),
    )


def _check_attributes(contents: Contents) -> None:
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


def _precision(weight: np.dtype[Any], other: np.dtype[Any]) -> str:
    """Name of the compute type that the file was saved in (`Model::infer_compute_type`)."""
    names = {"f4": "float32", "f2": "float16", "u2": "bfloat16", "i2": "int16"}
    if weight == np.int8:
        return f"int8_{names.get(other.str[1:], 'float32')}"
    return names.get(weight.str[1:], "float32")


def _layer_count(entries: Mapping[str, Any], side: str) -> int:
    """Layers numbered from 0 on without a gap."""
    found = {name.split("/")[1] for name in entries if name.startswith(f"{side}/layer_")}
    count = 0
    while f"layer_{count}" in found:
        count += 1
    return count


def _dimensions(contents: Contents, entries: Mapping[str, np.ndarray | Lazy]) -> Dimensions:
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


def _absent(name: str, file: str) -> str:
    return (
        f"variable {name} not found in file {file}: the file is damaged or not of a Whisper "
        "model; fetch or convert it again"
    )


def expected_shapes(dimensions: Dimensions) -> dict[str, tuple[int, ...]]:
    """The shape of every weight of a Whisper with these dimensions, in the order of the data."""
    audio, text = dimensions.n_audio_state, dimensions.n_text_state
    shapes: dict[str, tuple[int, ...]] = {}

    def linear(name: str, *shape: int) -> None:
        shapes[f"{name}/weight"] = shape
        shapes[f"{name}/bias"] = shape[:1]

    def norm(name: str, size: int) -> None:
        shapes[f"{name}/gamma"] = shapes[f"{name}/beta"] = (size,)

    def layer(name: str, size: int, cross: bool) -> None:
        norm(f"{name}/self_attention/layer_norm", size)
        linear(f"{name}/self_attention/linear_0", 3 * size, size)
        linear(f"{name}/self_attention/linear_1", size, size)
        if cross:
            norm(f"{name}/attention/layer_norm", size)
            linear(f"{name}/attention/linear_0", size, size)
            linear(f"{name}/attention/linear_1", 2 * size, audio)
            linear(f"{name}/attention/linear_2", size, size)
        norm(f"{name}/ffn/layer_norm", size)
        linear(f"{name}/ffn/linear_0", 4 * size, size)
        linear(f"{name}/ffn/linear_1", size, 4 * size)

    linear("encoder/conv1", audio, dimensions.n_mels, 3)
    linear("encoder/conv2", audio, audio, 3)
    shapes["encoder/position_encodings/encodings"] = (dimensions.n_audio_ctx, audio)
    for index in range(dimensions.n_audio_layer):
        layer(f"encoder/layer_{index}", audio, cross=False)
    norm("encoder/layer_norm", audio)
    shapes["decoder/embeddings/weight"] = (dimensions.n_vocab, text)
    shapes["decoder/position_encodings/encodings"] = (dimensions.n_text_ctx, text)
    for index in range(dimensions.n_text_layer):
        layer(f"decoder/layer_{index}", text, cross=True)
    norm("decoder/layer_norm", text)
    return shapes


def _check_weights(
    entries: dict[str, np.ndarray | Lazy], dimensions: Dimensions, file: str
) -> None:
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


def _check_size(entries: Mapping[str, np.ndarray | Lazy], contents: Contents) -> None:
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
