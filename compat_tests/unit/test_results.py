"""Results look like the reference's; arrays are shared with NumPy and DLPack without a copy."""

from __future__ import annotations

import threading
from typing import Any

import ctranslate2
import numpy as np
import pytest
from max.driver import Buffer
from max.dtype import DType

from whisper_max_backend.engine.api.arrays import ArrayView, EncoderOutput
from whisper_max_backend.engine.api.results import (
    WhisperAlignmentResult,
    WhisperGenerationResult,
    WhisperGenerationResultAsync,
)
from whisper_max_backend.engine.serving.workers import RequestFuture

REFERENCE = {
    WhisperGenerationResult: ctranslate2._ext.WhisperGenerationResult,
    WhisperGenerationResultAsync: ctranslate2._ext.WhisperGenerationResultAsync,
    WhisperAlignmentResult: ctranslate2._ext.WhisperAlignmentResult,
    EncoderOutput: ctranslate2.StorageView,
}


def public(cls: type) -> set[str]:
    return {name for name in dir(cls) if not name.startswith("_")}


@pytest.mark.parametrize("ours", REFERENCE, ids=lambda cls: cls.__name__)
def test_classes_offer_what_the_reference_offers(ours: type):
    assert public(REFERENCE[ours]) <= public(ours)


def test_representation_has_the_reference_order():
    result = WhisperGenerationResult([["a"]], [[1]], [-0.5], [], 0.25)
    assert repr(result) == (
        "WhisperGenerationResult(sequences=[['a']], sequences_ids=[[1]], scores=[-0.5], "
        "logits=[], no_speech_prob=0.25)"
    )
    alignment = WhisperAlignmentResult([(0, 0), (0, 1)], [0.5])
    assert repr(alignment) == (
        "WhisperAlignmentResult(alignments=[(0, 0), (0, 1)], text_token_probs=[0.5])"
    )


def test_results_are_read_only_and_hashable():
    result = WhisperGenerationResult([], [], [], [], 0.0)
    with pytest.raises(AttributeError):
        result.scores = [1.0]  # type: ignore[misc]
    assert len({result, WhisperGenerationResult([], [], [], [], 0.0)}) == 2
    alignment = WhisperAlignmentResult([], [])
    with pytest.raises(AttributeError):
        alignment.alignments = [(0, 0)]  # type: ignore[misc]
    assert len({alignment, WhisperAlignmentResult([], [])}) == 2


def test_asynchronous_results_wait_and_share_their_batch():
    batch: RequestFuture[list[WhisperGenerationResult]] = RequestFuture()
    results = [WhisperGenerationResult([], [[i]], [], [], 0.0) for i in range(2)]
    waiting = [WhisperGenerationResultAsync(batch, i) for i in range(2)]
    assert not waiting[0].done()

    def compute() -> None:
        batch.compute(lambda *_: results, None)
        batch.finish()

    threading.Timer(0.02, compute).start()
    assert [w.result() for w in waiting] == results
    assert all(w.done() for w in waiting)


def test_asynchronous_results_raise_at_every_call():
    batch: RequestFuture[list[WhisperGenerationResult]] = RequestFuture()

    def fail(*_: Any) -> list[WhisperGenerationResult]:
        raise ValueError("no")

    batch.compute(fail, None)
    batch.finish()
    waiting = WhisperGenerationResultAsync(batch, 0)
    assert waiting.done()
    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            waiting.result()


def max_buffer(array: np.ndarray) -> Any:
    return Buffer.from_numpy(array)


@pytest.fixture(params=["numpy", "max"])
def sample(request: pytest.FixtureRequest):
    """Values [3, 4, 5] and an output that holds them, in NumPy's memory or MAX's."""
    values = np.arange(60, dtype=np.float32).reshape(3, 4, 5) / 7
    return values, EncoderOutput(values if request.param == "numpy" else max_buffer(values))


def test_arrays_are_shared_without_a_copy(sample: tuple[np.ndarray, EncoderOutput]):
    values, output = sample
    for shared in (np.asarray(output), np.from_dlpack(output)):
        assert shared.ctypes.data == values.ctypes.data
        np.testing.assert_array_equal(shared, values)
    storage = ctranslate2.StorageView.from_array(output)
    np.testing.assert_array_equal(np.array(storage), values)
    assert np.array(output).ctypes.data != values.ctypes.data


def test_attributes_are_those_of_a_storage_view(sample: tuple[np.ndarray, EncoderOutput]):
    values, output = sample
    reference = ctranslate2.StorageView.from_array(values)
    for name in ("shape", "dtype", "device", "device_index"):
        assert getattr(output, name) == getattr(reference, name)
    assert repr(output) == repr(reference)
    ours, theirs = output.__array_interface__, reference.__array_interface__
    assert ours == theirs
    with pytest.raises(AttributeError):
        _ = output.__cuda_array_interface__
    assert output.__dlpack_device__() == (1, 0)


def test_small_arrays_are_printed_whole():
    values = np.array([1, 2.5, -3], np.float32)
    assert repr(ArrayView(values)) == repr(ctranslate2.StorageView.from_array(values))


@pytest.mark.parametrize("name", ["float16", "float32"])
def test_conversion_is_the_reference_conversion(
    sample: tuple[np.ndarray, EncoderOutput], name: str
):
    values, output = sample
    dtype = getattr(ctranslate2.DataType, name)
    expected = ctranslate2.StorageView.from_array(values).to(dtype)
    for given in (dtype, name):
        converted = output.to(given)
        assert isinstance(converted, EncoderOutput)
        assert converted.dtype == dtype
        np.testing.assert_array_equal(np.array(converted), np.array(expected))
    with pytest.raises(ValueError, match="float64"):
        output.to("float64")


@pytest.mark.parametrize(
    "part", [slice(0, 1), slice(1, None), slice(None, None, 2), slice(2, 1), slice(-1, None)]
)
def test_slices_are_batches(sample: tuple[np.ndarray, EncoderOutput], part: slice):
    values, output = sample
    taken = output[part]
    assert isinstance(taken, EncoderOutput)
    assert taken.shape == list(values[part].shape)
    np.testing.assert_array_equal(np.array(taken), values[part])
    assert len(output) == 3


def test_slices_are_copied_in_large_pieces(monkeypatch: pytest.MonkeyPatch):
    """MAX's own copy goes number by number, which takes seconds for a batch of 30 s windows."""
    monkeypatch.setattr(Buffer, "contiguous", None)
    values = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    taken = EncoderOutput(max_buffer(values))[::2]
    np.testing.assert_array_equal(np.array(taken), values[::2])


def test_slices_of_neighbours_share_memory(sample: tuple[np.ndarray, EncoderOutput]):
    values, output = sample
    assert np.asarray(output[1:]).ctypes.data == values[1:].ctypes.data


def test_single_items_are_not_a_batch(sample: tuple[np.ndarray, EncoderOutput]):
    _, output = sample
    with pytest.raises(TypeError, match="slices"):
        output[0]  # type: ignore[index]
    with pytest.raises(TypeError):
        iter(output)  # type: ignore[call-overload]


def test_bfloat16_is_widened_by_conversion():
    bits = np.array([[[0x3F80, 0x4049]]], np.uint16)  # 1 and 3.140625
    output = EncoderOutput(max_buffer(bits).view(DType.bfloat16))
    assert output.dtype == ctranslate2.DataType.bfloat16
    assert np.array(output.to("float32")).tolist() == [[[1.0, 3.140625]]]
    with pytest.raises(RuntimeError, match="bfloat16"):
        _ = output.__array_interface__
