"""openai-whisper's checkpoints: a .pt file of torch.save with `dims` and `model_state_dict`.

torch is not needed: the file is a zip archive, not compressed, of a pickle and one entry per
storage. `pickle_reader.py` reads the pickle without running it.
"""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import PurePath
from typing import Any

import numpy as np

from . import huggingface, weight_adapters
from .files import Buffer, Contents, Files, array
from .pickle_reader import read_pickle
from .tokenizer_files import read_tokens_beside

_LOCAL = struct.Struct("<4s22xHH")  # signature, and the sizes of name and extra field
_ENCRYPTED = 1  # of a zip entry's flags
_MOST_DIRECTORY = 1 << 22  # bytes; large-v3 has 0.1 million
_FETCH = "fetch the checkpoint again"


def read(files: Files, name: str) -> Contents:
    """Read the checkpoint `name`; the vocabulary comes from beside it or from openai-whisper.

    RuntimeError where it is no such checkpoint, is damaged, or names an unexpected class.
    """
    where = files.describe(name)
    content = files.require(name)
    saved = _unpickle(content, where)
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
    tensors = {key: value for key, value in state.items() if isinstance(value, np.ndarray)}
    layers, heads = sizes["n_text_layer"], sizes["n_text_head"]
    entries = weight_adapters.fuse(tensors, weight_adapters.OPENAI, sizes["n_audio_layer"], layers)
    tokens = read_tokens_beside(files, huggingface.token_count(entries, where))
    known = {"alignment_heads": _alignment_heads(PurePath(name).stem)}
    config, config_file = huggingface.decoding_config(files, known, tokens, layers, heads)
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
        size=len(content),
        config_file=config_file,
        config_keys=huggingface.SETTINGS,
        layers=(sizes["n_audio_layer"], sizes["n_text_layer"]),
    )


def _alignment_heads(stem: str) -> list[list[int]] | None:
    """Heads of a published model by its file name, from the reference's converter."""
    from ctranslate2 import converters  # brings more than the files of other formats need

    table = getattr(converters.transformers, "_WHISPER_ALIGNMENT_HEADS", {})
    heads = table.get(f"openai/whisper-{stem}")
    return None if heads is None else [list(pair) for pair in heads]


class _Archive:
    """The zip archive that torch.save writes, its storages as views of the file."""

    def __init__(self, buffer: Buffer) -> None:
        self._buffer = memoryview(buffer)
        self._zip = zipfile.ZipFile(_Reader(self._buffer))
        names = [name for name in self._zip.namelist() if name.endswith("/data.pkl")]
        if len(names) != 1:
            raise ValueError("it has no data.pkl")
        self._prefix = names[0].removesuffix("data.pkl")
        ordered = self._prefix + "byteorder" in self._zip.namelist()  # older files do not say it
        if ordered and bytes(self._entry("byteorder")) != b"little":
            raise ValueError("it was saved on a big-endian machine")

    def load(self) -> Any:
        return read_pickle(bytes(self._entry("data.pkl")), self._storage)

    def _storage(self, key: str, dtype: np.dtype[Any], count: int) -> np.ndarray:
        entry = self._entry(f"data/{key}")
        if not 0 <= count * dtype.itemsize <= len(entry):
            raise ValueError(f"storage {key} is shorter than it should be")
        return array(entry, dtype, (count,), 0, f"storage {key}")

    def _entry(self, name: str) -> memoryview:
        """A part of the file. ValueError where it is not as torch.save stores it."""
        info = self._zip.getinfo(self._prefix + name)
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & _ENCRYPTED:
            raise ValueError(
                f"its entry {name} is compressed or encrypted, which torch.save does not do"
            )
        # The local header is 30 bytes, then the name and an extra field of lengths of its own.
        start = info.header_offset
        if not 0 <= start <= len(self._buffer) - _LOCAL.size:
            raise ValueError(f"its entry {name} is outside of it")
        magic, name_size, extra_size = _LOCAL.unpack_from(self._buffer, start)
        start += _LOCAL.size + name_size + extra_size
        if magic != b"PK\3\4" or start + info.file_size > len(self._buffer):
            raise ValueError(f"its entry {name} goes past its end")
        return self._buffer[start : start + info.file_size]


class _Reader(io.RawIOBase):
    """A file object over a buffer, for the directory of an archive."""

    def __init__(self, buffer: memoryview) -> None:
        self._buffer = buffer
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
        view = self._buffer[self._position : end]
        if len(view) > _MOST_DIRECTORY:
            raise OSError("its directory is larger than that of any checkpoint")
        content = bytes(view)
        self._position += len(content)
        return content


def _unpickle(buffer: Buffer, where: str) -> Any:
    try:
        return _Archive(buffer).load()
    # A damaged archive or pickle fails in many ways, in zipfile and pickletools too, all of which
    # mean the same.
    except Exception as error:
        raise RuntimeError(
            f"File {where} cannot be read as a checkpoint of openai-whisper ({error}): {_FETCH}, "
            "or save it again with a current torch"
        ) from error
