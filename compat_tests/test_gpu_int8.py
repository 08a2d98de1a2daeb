"""int8 weights in the graphs of a GPU, executed on the CPU: what the weights are.

What the engine makes of them is held against the reference in `test_engine_parity`.
"""

from __future__ import annotations

import hashlib
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from max.driver import CPU
from max.dtype import DType
from max.graph import DeviceRef, Module, TensorType

from compat_tests.support.gpu_engine import GPUGraphsWhisper
from compat_tests.support.miniature import make_model
from compat_tests.support.models import model_directory, subject
from compat_tests.support.randomness import rng
from compat_tests.support.recordings import load
from whisper_max_backend.engine.checkpoint.load import Checkpoint, load_checkpoint
from whisper_max_backend.engine.compile.artifacts import compiled
from whisper_max_backend.engine.compile.session import Session
from whisper_max_backend.engine.gpu.graphs.layers import Layers
from whisper_max_backend.engine.gpu.graphs.weight_specs import decoder_weights
from whisper_max_backend.engine.gpu.model import GPUModel
from whisper_max_backend.engine.graphs.ops import new_graph

pytestmark = pytest.mark.slow


def on_device(checkpoint: Checkpoint) -> dict[str, list[np.ndarray]]:
    """The decoder's weights by name: one array each, two of what is int8."""
    placed = GPUModel(checkpoint, CPU(), "int8_float32").weights.decoder
    return {
        weight.name: [placed[one.name].to_numpy() for one in weight.inputs(DType.int8)]
        for weight in decoder_weights(checkpoint.dimensions)
    }


@pytest.mark.parametrize("saved", [None, "float16", "int8", "int8_float16"])
def test_weights(saved: str | None, tmp_path: Path) -> None:
    """Those of an int8 model are its own; of floats they are what the reference's converter makes.

    Where these were rounded to float16 before, an odd one may be on the other side of a half.
    """
    converted = load_checkpoint(make_model(tmp_path / "int8", "one-head", quantization="int8"))
    found = on_device(
        load_checkpoint(make_model(tmp_path / "saved", "one-head", quantization=saved))
    )
    int8 = {name for name, arrays in found.items() if len(arrays) == 2}
    names = {name for name in found if name.endswith("/weight")}
    assert int8 == names
    assert len(names) == 7  # the embeddings, four of attention, two of the feed-forward
    for name in names:
        values, scales = found[name]
        assert values.dtype == np.int8
        expected = np.asarray(converted.weights[f"{name}_scale"]).reshape(-1)
        if saved == "float16":
            assert np.abs(values.astype(int) - converted.weights[name]).max() <= 1, name
            np.testing.assert_allclose(scales, 1 / expected, rtol=1e-3)
        else:
            np.testing.assert_array_equal(values, converted.weights[name], name)
            np.testing.assert_array_equal(scales, 1 / expected, name)


@pytest.mark.filterwarnings("error")
def test_rows_without_a_largest_number(tmp_path: Path) -> None:
    """A row of zeros, and one of numbers so small that the reference's factor would overflow."""
    checkpoint = load_checkpoint(make_model(tmp_path, "one-head"))
    name = "decoder/layer_0/ffn/linear_0/weight"
    weight = np.array(checkpoint.weights[name])
    weight[3], weight[5], weight[6] = 0, 1e-40, -weight[6] * 1e30
    changed = Checkpoint(
        checkpoint.dimensions,
        {**checkpoint.weights, name: weight},
        checkpoint.vocabulary,
        checkpoint.config,
        checkpoint.dtype,
    )
    values, scales = on_device(changed)[name]
    assert np.isfinite(scales).all()
    assert not values[3].any()
    error = np.abs(values.astype(np.float64) * scales[:, None] - weight)
    assert (error <= 0.5001 * np.maximum(scales, 1e-38)[:, None]).all()


def test_dequantised_on_the_way_to_a_product() -> None:
    """Products of many rows are MAX's: of what the scales make of the weights."""
    x = rng().normal(size=(2, 9, 48)).astype(np.float32)
    weight = rng().integers(-128, 128, (40, 48)).astype(np.int8)
    scales, bias = (rng().normal(size=40).astype(np.float32) for _ in range(2))
    session = Session([CPU()])
    source = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    build = partial(_products, 40, 48)
    artifact = compiled("test_products", build, key={"source": source}, session=session)
    model = session.init_all(artifact)["products"]
    found = [result.to_numpy() for result in model.execute(x, weight, scales, bias)]
    exact = np.asarray(weight, np.float64) * scales[:, None]
    expected = np.asarray(x, np.float64) @ exact.T + bias
    for result, times in zip(found, (1, 2), strict=True):
        np.testing.assert_allclose(result, times * expected, rtol=1e-4, atol=1e-3)


def _products(outputs: int, inputs: int) -> Module:
    """``x weight^T + bias`` as a GPU makes it of many rows; and that added to itself."""
    module, device = Module(), DeviceRef.CPU()
    layers = Layers(device, "cuda", DType.float32)
    types = [
        layers.floats("items", "queries", inputs),
        TensorType(DType.int8, [outputs, inputs], device),
        layers.floats(outputs),
        layers.floats(outputs),
    ]
    with new_graph("products", types, module) as graph:
        x, *linear = (value.tensor for value in graph.inputs)
        y = layers.linear(x, *linear)
        graph.output(y, layers.added(y, x, *linear))
    return module


def test_clear_speech_has_the_words_of_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whisper_max_backend.engine.whisper.Whisper", GPUGraphsWhisper)

    def words(compute_type: str) -> list[str]:
        folder = str(model_directory("tiny.en"))
        model = subject().WhisperModel(folder, compute_type=compute_type)
        assert model.model.compute_type == compute_type
        segments, _ = model.transcribe(load("jfk"), temperature=0.0)
        return re.findall(r"[\w']+", "".join(segment.text for segment in segments).lower())

    assert words("int8_float32") == words("float32")
