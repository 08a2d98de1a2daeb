"""The weights of a GPU's graphs, put onto the CPU: those of the file, rounded to the nearest."""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from max.driver import CPU, Buffer
from max.dtype import DType
from max.graph import DeviceRef, Module

from compat_tests.support.miniature import make_model
from compat_tests.support.randomness import rng
from whisper_max_backend.engine.checkpoint.bfloat16 import rounded
from whisper_max_backend.engine.checkpoint.load import dense, load_checkpoint
from whisper_max_backend.engine.compile.artifacts import compiled
from whisper_max_backend.engine.compile.session import Session
from whisper_max_backend.engine.gpu.graphs.casts import add_casts
from whisper_max_backend.engine.gpu.graphs.layers import Layers
from whisper_max_backend.engine.gpu.graphs.weight_specs import cross_kv_weights, encoder_weights
from whisper_max_backend.engine.gpu.model import GPUModel

pytestmark = pytest.mark.slow


def test_rounded_to_the_nearest_bfloat16() -> None:
    """All of float16, and of float32 normal ones around the middle between two neighbours."""
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    bits = rng().integers(0x0080, 0x7F00, (64, 1000)).astype(np.uint32) << 16
    bits += rng().choice(np.array([0, 1, 0x7FFF, 0x8000, 0x8001], np.uint32), bits.shape)
    signs = rng().integers(0, 2, bits.shape).astype(np.uint32) << 31
    source = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    session = Session([CPU()])
    build = partial(_casts, DType.bfloat16)
    artifact = compiled("test_casts", build, key={"source": source}, session=session)
    graphs = session.init_all(artifact)
    assert sorted(graphs) == ["cast_float16", "cast_float32"]
    for values in (halves[np.isfinite(halves)].reshape(8, -1), (bits | signs).view(np.float32)):
        (made,) = graphs[f"cast_{values.dtype.name}"].execute(Buffer.from_numpy(values[None]))
        found = made.view(DType.uint16).to_numpy()[0]
        np.testing.assert_array_equal(found, rounded(values.astype(np.float32)))


def _casts(dtype: DType) -> Module:
    module = Module()
    add_casts(module, Layers(DeviceRef.CPU(), "cpu", dtype))
    return module


@pytest.mark.parametrize("saved", [None, "float16", "bfloat16", "int16", "int8", "int8_float16"])
def test_every_type_of_file(saved: str | None, tmp_path: Path) -> None:
    """In float32 each matrix is the very one that the file has."""
    checkpoint = load_checkpoint(make_model(tmp_path, "one-head", quantization=saved))
    placed = GPUModel(checkpoint, CPU(), "float32").weights
    inputs = placed.encoder | placed.cross_kv
    wanted = [*encoder_weights(checkpoint.dimensions), *cross_kv_weights(checkpoint.dimensions)]
    assert len(wanted) == len(inputs)
    for weight in wanted:
        (one,) = weight.inputs(DType.float32)
        rows = dense(checkpoint.weights, weight.name)[weight.first :][: weight.shape[0]]
        if rows.ndim == 3:  # of a convolution, whose kernel comes first here
            rows = rows.swapaxes(1, 2).reshape(weight.shape)
        np.testing.assert_array_equal(inputs[one.name].to_numpy(), rows, one.name)
