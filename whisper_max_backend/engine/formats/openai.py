"""openai-whisper's checkpoints: a .pt file of torch.save with `dims` and `model_state_dict`.

torch is not needed: the file is a zip archive of a pickle and one entry per storage. The pickle is
read with the few classes that such a checkpoint names and no others, so it cannot run code.
"""

from __future__ import annotations

import binascii
import io
import math
import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import PurePath
from typing import Any

import numpy as np

from whisper_max_backend.engine.formats import huggingface, split
from whisper_max_backend.engine.formats.source import Buffer, Contents, Files, array
from whisper_max_backend.engine.formats.tokens import read_tokens_beside

_STORAGES = {
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype("<u2"),
}
_FETCH = "fetch the checkpoint again"


def read(files: Files, name: str) -> Contents:
    """Read the checkpoint `name`; the vocabulary comes from beside it or from openai-whisper.

    RuntimeError where it is no such checkpoint, is damaged, or names an unexpected class.
    """
    where = files.describe(name)
    saved = _unpickle(files.require(name), where)
    dims, state = (
        (saved.get("dims"), saved.get("model_state_dict")) if isinstance(saved, dict) else (0, 0)
    )
    if not isinstance(dims, dict) or not isinstance(state, dict):
        raise RuntimeError(
            f"File {where} is not a checkpoint of openai-whisper: it should hold 'dims' and "
            "'model_state_dict'"
        )
    sizes = {
        key: huggingface.small_number(dims, key, where)
        for key in ("n_audio_layer", "n_text_layer", "n_audio_head", "n_text_head")
    }
    tensors = {str(key): value for key, value in state.items() if isinstance(value, np.ndarray)}
    entries = split.fuse(tensors, split.OPENAI, sizes["n_audio_layer"], sizes["n_text_layer"])
    embeddings = entries.get("decoder/embeddings/weight")
    tokens = read_tokens_beside(files, embeddings.shape[0] if embeddings is not None else 0)
    layers, heads = sizes["n_text_layer"], sizes["n_text_head"]
    known = {"alignment_heads": _alignment_heads(PurePath(name).stem)}
    config = huggingface.decoding_config(files, known, tokens, layers, heads)
    if "Ġ" in tokens and "<|endoftext|>" in tokens:
        begin = [tokens.index("Ġ"), tokens.index("<|endoftext|>")]
        config.setdefault("suppress_ids_begin", begin)
    return Contents(
        entries=entries,
        encoder_heads=sizes["n_audio_head"],
        decoder_heads=heads,
        tokens=tokens,
        config=config,
        file=where,
        layers=(sizes["n_audio_layer"], sizes["n_text_layer"]),
    )


def _alignment_heads(stem: str) -> list[list[int]] | None:
    """Heads of a published model by its file name, from the reference's converter."""
    from ctranslate2 import converters  # brings more than the files of other formats need

    table = getattr(converters.transformers, "_WHISPER_ALIGNMENT_HEADS", {})
    heads = table.get(f"openai/whisper-{stem}")
    return None if heads is None else [list(pair) for pair in heads]


class _Storage:
    """A named entry of the archive and the type of its elements."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> np.ndarray:
    """What torch._utils._rebuild_tensor_v2 does, on a view of the file. ValueError if outside."""
    numbers = (offset, *shape, *strides)
    if (
        not isinstance(storage, _Storage)
        or len(shape) != len(strides)
        or not all(type(number) is int and number >= 0 for number in numbers)
    ):
        raise ValueError("a tensor is ill described")
    values = storage.values
    last = offset + sum((size - 1) * step for size, step in zip(shape, strides, strict=True))
    if math.prod(shape) > values.size or (math.prod(shape) and last >= values.size):
        raise ValueError("a tensor goes past its storage")
    width = values.itemsize
    return np.lib.stride_tricks.as_strided(
        values[offset:], tuple(shape), [step * width for step in strides], writeable=False
    )


def _rebuild_parameter(tensor: Any, *_: Any) -> Any:
    """What torch._utils._rebuild_parameter does: a parameter is its tensor here."""
    return tensor


class _Unpickler(pickle.Unpickler):
    """Knows the classes of a torch checkpoint of plain tensors; any other is an error."""

    def __init__(self, archive: _Archive, pickled: bytes) -> None:
        super().__init__(io.BytesIO(pickled))
        self._archive = archive

    def find_class(self, module: str, name: str) -> Any:
        known = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
            ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
        }
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        if (module, name) not in known:
            raise pickle.UnpicklingError(
                f"it names {module}.{name}, which no checkpoint of openai-whisper needs"
            )
        return known[module, name]

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _, count = pid
        if kind != "storage" or not isinstance(dtype, np.dtype) or type(count) is not int:
            raise pickle.UnpicklingError(f"unknown reference {pid!r}")
        return _Storage(self._archive.storage(str(key), dtype, count))


class _Archive:
    """The zip archive that torch.save writes, its storages as views of the file."""

    def __init__(self, buffer: Buffer) -> None:
        self._buffer = buffer
        self._zip = zipfile.ZipFile(_Reader(buffer))
        names = [name for name in self._zip.namelist() if name.endswith("/data.pkl")]
        if len(names) != 1:
            raise ValueError("it has no data.pkl")
        self._prefix = names[0].removesuffix("data.pkl")
        if self._read("byteorder", b"little") != b"little":
            raise ValueError("it was saved on a big-endian machine")

    def load(self) -> Any:
        return _Unpickler(self, self._zip.read(self._prefix + "data.pkl")).load()

    def _read(self, name: str, default: bytes) -> bytes:
        path = self._prefix + name
        return self._zip.read(path) if path in self._zip.namelist() else default

    def storage(self, key: str, dtype: np.dtype[Any], count: int) -> np.ndarray:
        info = self._zip.getinfo(f"{self._prefix}data/{key}")
        if not 0 <= count * dtype.itemsize <= info.file_size:
            raise ValueError(f"storage {key} is shorter than it should be")
        if info.compress_type != zipfile.ZIP_STORED:
            return array(self._zip.read(info), dtype, (count,), 0)
        # The local header is 30 bytes, then the name and an extra field of lengths of its own.
        name, extra = struct.unpack_from("<HH", self._buffer, info.header_offset + 26)
        start = info.header_offset + 30 + name + extra
        if start + count * dtype.itemsize > len(self._buffer):
            raise ValueError(f"storage {key} goes past the end of the file")
        return array(self._buffer, dtype, (count,), start)


class _Reader(io.RawIOBase):
    """A file object over a buffer, without a copy of it."""

    def __init__(self, buffer: Buffer) -> None:
        self._buffer = memoryview(buffer)
        self._position = 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: len(self._buffer)}
        self._position = base[whence] + offset
        if self._position < 0:
            raise OSError("seek before the start")
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        end = len(self._buffer) if size is None or size < 0 else self._position + size
        content = bytes(self._buffer[self._position : end])
        self._position += len(content)
        return content


def _unpickle(buffer: Buffer, where: str) -> Any:
    try:
        return _Archive(buffer).load()
    except RecursionError as error:
        raise RuntimeError(f"File {where} is damaged: its pickle is nested too deep") from error
    # A damaged archive or pickle fails in any of these ways, all of which mean the same.
    except (
        *(zipfile.BadZipFile, zipfile.LargeZipFile, pickle.UnpicklingError, struct.error, OSError),
        *(ValueError, TypeError, LookupError, AttributeError, EOFError, ArithmeticError),
        *(NotImplementedError, MemoryError, binascii.Error, AssertionError, RuntimeError),
    ) as error:
        raise RuntimeError(
            f"File {where} cannot be read as a checkpoint of openai-whisper ({error}): {_FETCH}, "
            "or save it again with a current torch"
        ) from error
