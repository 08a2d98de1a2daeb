"""The files that the benchmarks write for other programs hold the model's own weights."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from benchmarks.peers import Model
from benchmarks.peers.converted import hugging_face, openai_weights
from benchmarks.peers.ggml import save
from compat_tests.support.models import model_directory
from whisper_max_backend.engine.checkpoint.load import dense, load_checkpoint
from whisper_max_backend.engine.compile.cache import VARIABLE


@pytest.fixture(scope="module")
def model() -> Model:
    return Model("tiny.en", model_directory("tiny.en"))


def test_hugging_face_directory(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    written, original = load_checkpoint(hugging_face(model)), load_checkpoint(model.folder)
    assert written.dimensions == original.dimensions
    assert written.vocabulary == original.vocabulary
    for key in ("suppress_ids", "suppress_ids_begin", "alignment_heads"):
        assert written.config[key] == original.config[key]
    for name in original.weight_names():
        np.testing.assert_array_equal(
            dense(written.weights, name), dense(original.weights, name), err_msg=name
        )


@pytest.mark.parametrize("storage", ["f16", "q8_0"])
def test_ggml_file(model: Model, storage: str, tmp_path: Path) -> None:
    save(model, storage, tmp_path / "model.bin")
    content = (tmp_path / "model.bin").read_bytes()
    position = 4 * 12
    mels, bins = struct.unpack_from("<2i", content, position)
    position += 8 + 4 * mels * bins
    (tokens,) = struct.unpack_from("<i", content, position)
    position += 4
    texts = []
    for _ in range(tokens):
        (size,) = struct.unpack_from("<i", content, position)
        texts.append(content[position + 4 : position + 4 + size])
        position += 4 + size
    assert texts[0] == b"!"
    assert b" country" in texts
    expected = openai_weights(model)
    while position < len(content):
        dimensions, length, kind = struct.unpack_from("<3i", content, position)
        position += 12
        shape = struct.unpack_from(f"<{dimensions}i", content, position)[::-1]
        position += 4 * dimensions
        name = content[position : position + length].decode()
        position += length
        count = int(np.prod(shape))
        weight = expected.pop(name)
        assert weight.size == count
        if kind == 8:
            blocks = np.frombuffer(
                content, [("scale", "<f2"), ("bytes", "i1", 32)], count // 32, position
            )
            values = blocks["bytes"] * blocks["scale"][:, None].astype(np.float32)
            position += blocks.nbytes
            # Half a step, and what the scale loses in float16 of up to 127 steps.
            bound = 0.6 * blocks["scale"].astype(np.float32)[:, None] + 1e-6
            error = np.abs(values - weight.reshape(values.shape))
            assert (error <= bound).all(), name
        else:
            stored = np.frombuffer(content, "<f2" if kind == 1 else "<f4", count, position)
            position += stored.nbytes
            np.testing.assert_array_equal(stored.astype(np.float32), weight.reshape(-1), name)
    assert not expected
