"""A model's weights, dimensions, vocabulary and configuration, whatever format they came in.

The names of the weights are those of CTranslate2's model.bin, so that a CTranslate2 directory,
the format faster-whisper uses, is a matter of memory-mapping. Other formats are fused into it.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import ctranslate2
from .bfloat16 import widened
from .decoding_config import checked_config
from .dimensions import Dimensions
from .files import SAFETENSORS, SAFETENSORS_INDEX, Contents, Files, Weights
from .validation import check_attributes, check_size, check_weights, read_dimensions
from .vocabulary import Vocabulary

logger = logging.getLogger("whisper_max_backend")

_INT16_SCALE = 1000.0  # of CTranslate2's first int16 models, which do not store it


@dataclass(frozen=True)
class Checkpoint:
    """A model as it was saved. `dense` gives its weights as float32.

    `file_states` are of all files that it was read from, when they were opened; none if it came
    from memory.
    """

    dimensions: Dimensions
    weights: Mapping[str, np.ndarray]
    vocabulary: Vocabulary
    config: Mapping[str, Any]
    dtype: str
    file_states: Sequence[os.stat_result] = ()

    def weight_names(self) -> Iterator[str]:
        """Names of the weights proper, without the scales of quantised ones."""
        return (name for name in self.weights if not name.endswith("_scale"))

    def in_memory(self) -> Checkpoint:
        """The same model, which no longer reads the files that it came from."""
        copies = {name: np.array(values) for name, values in self.weights.items()}
        return dataclasses.replace(self, weights=copies)


def is_model_path(path: str) -> bool:
    """Whether a path is what `load_checkpoint` opens: a directory, or a .pt file."""
    return os.path.isdir(path) or _is_pt_file(path)


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
    if files is None and _is_pt_file(path):
        folder, name = os.path.split(path)
        source = Files(folder or ".")
        return _finish(_read_openai(source, name), path, source)
    source = Files(path, files)
    names = source.names()
    checkpoints = [name for name in names if name.endswith(".pt")]
    if ctranslate2.MODEL in names:
        contents = ctranslate2.read(source)
    elif SAFETENSORS in names or SAFETENSORS_INDEX in names:
        contents = _read_huggingface(source)
    elif len(checkpoints) == 1:
        contents = _read_openai(source, checkpoints[0])
    elif checkpoints:
        raise RuntimeError(
            f"The model directory '{path}' holds several checkpoints: give the path of one of "
            f"{', '.join(checkpoints)}"
        )
    else:
        contents = ctranslate2.read(source)
    return _finish(contents, path, source)


def _read_huggingface(source: Files) -> Contents:
    from . import huggingface  # most models are CTranslate2's, and start sooner without it

    return huggingface.read(source)


def _read_openai(source: Files, name: str) -> Contents:
    from . import openai

    return openai.read(source, name)


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


def _is_pt_file(path: str) -> bool:
    return path.endswith(".pt") and os.path.isfile(path)


def _finish(contents: Contents, path: str, source: Files) -> Checkpoint:
    """Check what was read and complete it."""
    file = contents.file
    check_attributes(contents)
    vocabulary = Vocabulary(contents.tokens)
    missing = vocabulary.missing()
    if missing:
        raise RuntimeError(
            f"The vocabulary of the model '{path}' is not Whisper's: it lacks "
            f"{', '.join(missing)}. Put the vocabulary that belongs to the model there"
        )
    entries = dict(contents.entries)
    dimensions = read_dimensions(contents, entries)
    check_weights(entries, dimensions, file)
    check_size(entries, contents)
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
        file_states=source.states,
    )


def _precision(weight: np.dtype[Any], other: np.dtype[Any]) -> str:
    """Name of the compute type that the file was saved in (`Model::infer_compute_type`)."""
    names = {"f4": "float32", "f2": "float16", "u2": "bfloat16", "i2": "int16"}
    if weight == np.int8:
        return f"int8_{names.get(other.str[1:], 'float32')}"
    return names.get(weight.str[1:], "float32")
