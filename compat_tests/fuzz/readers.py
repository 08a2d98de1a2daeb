"""Target: models in all formats, damaged and hostile, read as `Whisper(...)` reads them.

An input is the files of a model directory. It fails unless it is refused by an exception that names
the model, or read, every weight of it, twice with the same result: from memory and from a folder.
"""

from __future__ import annotations

import base64
import json
import logging
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from compat_tests.fuzz.bundle import pack
from compat_tests.fuzz.campaign import memory_folder
from compat_tests.support.miniature import SPECK, make_model, vocabulary_tokens
from compat_tests.support.miniature_formats import make_hugging_face, make_openai
from whisper_max_backend.engine.checkpoint.load import Checkpoint, dense, load_checkpoint

SOUND = "read"  # what becomes of a seed
_PATH = "the-fuzzed-model"


def prepare() -> None:
    """Silence what sound but odd inputs say."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")


def seeds() -> list[bytes]:
    """Sound models of a few kilobytes, in every format, precision and arrangement of files."""
    with tempfile.TemporaryDirectory() as scratch, pytest.MonkeyPatch.context() as patch:
        folder = Path(scratch)
        for kind in ("float32", "int8", "int16", "float16", "bfloat16"):
            make_model(folder / f"ct2-{kind}", SPECK, quantization=kind)
        for kind in ("float32", "float16", "bfloat16"):
            make_hugging_face(folder / f"hf-{kind}", SPECK, kind)
            make_openai(folder / f"openai-{kind}", patch, SPECK, kind)
        make_hugging_face(folder / "hf-shards", SPECK, shards=2)
        models = {path.name: _files(path) for path in sorted(folder.iterdir())}
    models["ct2-text"] = _with_text_vocabulary(models["ct2-float32"])
    models["hf-vocab"] = _with_vocab_json(models["hf-float32"])
    models["openai-tiktoken"] = _with_tiktoken(models["openai-float32"])
    return [pack(files) for files in models.values()]


def _files(folder: Path) -> dict[str, bytes]:
    """Without those that the readers do not look at."""
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    files.pop("preprocessor_config.json", None)
    if "model.bin" in files:
        del files["tokenizer.json"]
    return files


def _with_text_vocabulary(files: Mapping[str, bytes]) -> dict[str, bytes]:
    changed = dict(files)
    lines = [token + "\n" for token in json.loads(changed.pop("vocabulary.json"))]
    return {**changed, "vocabulary.txt": "".join(lines).encode()}


def _with_vocab_json(files: Mapping[str, bytes]) -> dict[str, bytes]:
    changed = dict(files)
    del changed["tokenizer.json"]
    tokens = vocabulary_tokens(SPECK)
    ids = {token: index for index, token in enumerate(tokens)}
    end = ids["<|endoftext|>"]
    for name, chosen in (("vocab.json", tokens[:end]), ("added_tokens.json", tokens[end:])):
        changed[name] = json.dumps({token: ids[token] for token in chosen}).encode()
    return changed


def _with_tiktoken(files: Mapping[str, bytes]) -> dict[str, bytes]:
    changed = dict(files)
    del changed["tokenizer.json"]
    tokens = vocabulary_tokens(SPECK)
    letters = {letter: byte for byte, letter in enumerate(tokens[:256])}
    lines = [
        b"%s %d\n" % (base64.b64encode(bytes(letters[letter] for letter in token)), rank)
        for rank, token in enumerate(tokens[: tokens.index("<|endoftext|>")])
    ]
    return {**changed, "gpt2.tiktoken": b"".join(lines)}


def check(files: Mapping[str, bytes]) -> str:
    """What became of the input, in a few words; anything wrong raises."""
    try:
        checkpoint = load_checkpoint(_PATH, files)
        weights = _weights(checkpoint)
    except (RuntimeError, ValueError) as error:
        if _PATH not in str(error):
            raise
        check_memory(error)
        return f"refused, {type(error).__name__}"
    _check_settings(checkpoint)
    if not all(name and name == Path(name).name and "\0" not in name for name in files):
        return SOUND
    _compare(weights, files)
    return SOUND


def check_memory(error: BaseException) -> None:
    """Raise if the cause is that memory ran out, which must not be tried."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MemoryError):
            raise cause
        cause = cause.__cause__ or cause.__context__


def _weights(checkpoint: Checkpoint) -> dict[str, bytes]:
    """Every number of every weight."""
    names = checkpoint.weight_names()
    return {name: dense(checkpoint.weights, name).tobytes() for name in names}


def _check_settings(checkpoint: Checkpoint) -> None:
    """Ids and heads that decoding would go wrong with."""
    dimensions, config = checkpoint.dimensions, checkpoint.config
    for key in ("lang_ids", "suppress_ids", "suppress_ids_begin"):
        for index in config.get(key, ()):
            least = -1 if key == "suppress_ids" else 0
            assert type(index) is int, f"{key}: {index!r}"
            assert least <= index < dimensions.n_vocab, f"{key}: {index}"
    for layer, head in config.get("alignment_heads", ()):
        assert type(layer) is type(head) is int, f"alignment head {layer!r}, {head!r}"


def _compare(weights: Mapping[str, bytes], files: Mapping[str, bytes]) -> None:
    """The same model, once more: other memory lies around the copy in the folder's files."""
    folder = tempfile.mkdtemp(dir=memory_folder())
    try:
        for name, content in files.items():
            Path(folder, name).write_bytes(content)
        again = _weights(load_checkpoint(folder))
    finally:
        shutil.rmtree(folder)
    differing = [name for name in weights if weights[name] != again.get(name)]
    assert not differing, f"other numbers: {differing}"
