"""Features and encoder outputs of many libraries and precisions: which are taken, which refused.

PyTorch, ml_dtypes and the like are not installed: classes here offer what those offer.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ctranslate2 import DataType, StorageView
from max.driver import Buffer
from max.dtype import DType

from compat_tests.support.miniature import ARCHITECTURES, make_model, to_bfloat16
from compat_tests.support.numpy_runtime import both, random_features, storage
from whisper_max_backend.engine.api.arrays import EncoderOutput
from whisper_max_backend.engine.whisper import Whisper

BATCH, FRAMES = 2, 60
PROMPT = ["<|startoftranscript|>", "<|en|>", "<|transcribe|>"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Whisper, Any]:
    return both(make_model(tmp_path_factory.mktemp("one-head"), "one-head"))


@pytest.fixture(scope="module")
def features() -> np.ndarray:
    return random_features((BATCH, ARCHITECTURES["one-head"].n_mels, FRAMES))


class DLPack:
    """A tensor as PyTorch's: DLPack, and no array interface."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()


class Interface:
    """An array of another library; `typestr` is what its interface says of its numbers."""

    def __init__(self, array: np.ndarray, typestr: str) -> None:
        self.array = array
        self.typestr = typestr

    @property
    def __array_interface__(self) -> dict[str, Any]:
        described = self.array.__array_interface__
        return {**described, "typestr": self.typestr, "descr": [("", self.typestr)]}


class Convertible:
    """An array that only converts itself, as xarray's."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.array, dtype=dtype)


def bfloat16_buffer(values: np.ndarray) -> Buffer:
    return Buffer.from_numpy(to_bfloat16(values)).view(DType.bfloat16)


HALVES: dict[str, tuple[str, Callable[[np.ndarray], Any]]] = {
    "StorageView, float16": ("float16", lambda x: storage(x).to(DataType.float16)),
    "StorageView, bfloat16": ("bfloat16", lambda x: storage(x).to(DataType.bfloat16)),
    "encoder output, float16": ("float16", lambda x: EncoderOutput(x).to("float16")),
    "encoder output, bfloat16": ("bfloat16", lambda x: EncoderOutput(x).to("bfloat16")),
    "NumPy, float16": ("float16", lambda x: x.astype(np.float16)),
    "DLPack, float16": ("float16", lambda x: DLPack(x.astype(np.float16))),
    "DLPack, bfloat16": ("bfloat16", lambda x: DLPack(bfloat16_buffer(x))),
    "MAX, bfloat16": ("bfloat16", bfloat16_buffer),
    "MAX, strided": ("float32", lambda x: Buffer.from_numpy(x.repeat(2, 2))[:, :, ::2]),
    "MAX, strided bfloat16": ("bfloat16", lambda x: bfloat16_buffer(x.repeat(2, 2))[:, :, ::2]),
    "interface, float16": ("float16", lambda x: Interface(x.astype(np.float16), "<f2")),
    "interface, bfloat16": ("bfloat16", lambda x: Interface(to_bfloat16(x), "<V2")),
    "NumPy, bytes of bfloat16": ("bfloat16", lambda x: to_bfloat16(x).view("V2")),
    "strided bytes of bfloat16": (
        "bfloat16",
        lambda x: np.asfortranarray(to_bfloat16(x)).view("V2"),
    ),
    "__array__, float16": ("float16", lambda x: Convertible(x.astype(np.float16))),
    "encoder output, float32": ("float32", EncoderOutput),
    "__array__, float32": ("float32", Convertible),
}


@pytest.mark.parametrize("kind", HALVES)
def test_half_precision_is_taken(
    models: tuple[Whisper, Any], features: np.ndarray, kind: str
) -> None:
    """Features, and encoder outputs that are given back, in every call that takes them."""
    ours, reference = models
    name, make = HALVES[kind]
    dtype = getattr(DataType, name)
    output = np.array(reference.encode(storage(features)))
    start = [ours._vocabulary.to_id(token) for token in PROMPT]
    asked = np.array(reference.encode(storage(features).to(dtype)))
    encoded = ours.encode(make(features))
    assert encoded.dtype == DataType.float32
    np.testing.assert_array_equal(np.array(encoded), asked)
    for values in (features, output):
        given, stored = make(values), storage(values.copy()).to(dtype)
        for asynchronous in (False, True):
            found: Any = ours.generate(
                given, [PROMPT] * BATCH, max_length=20, asynchronous=asynchronous
            )
            wanted = reference.generate(stored, [PROMPT] * BATCH, max_length=20)
            results = [one.result() for one in found] if asynchronous else found
            assert [r.sequences_ids for r in results] == [r.sequences_ids for r in wanted]
        for one, other in zip(
            ours.detect_language(given), reference.detect_language(stored), strict=True
        ):
            assert dict(one) == pytest.approx(dict(other), rel=1e-4, abs=1e-6)
        assert [r.alignments for r in ours.align(given, start, [[40, 41], [50]], FRAMES)] == [
            r.alignments for r in reference.align(stored, start, [[40, 41], [50]], FRAMES)
        ]


class Refusing:
    """A tensor that cannot be shared as it is, such as one that records gradients."""

    def __dlpack__(self, **options: Any) -> Any:
        raise BufferError("Can't export tensors that require gradient, use tensor.detach()")

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0


class Foreign:
    """A view of another library that says so when it is asked for its numbers."""

    @property
    def __array_interface__(self) -> dict[str, Any]:
        raise RuntimeError("Data type int4 is not supported in the array interface")


class OnGpu:
    """A tensor on a GPU that is not there."""

    def __dlpack__(self, **options: Any) -> Any:
        raise RuntimeError("CUDA is not available")

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0


class Strided(OnGpu):
    """A tensor on a GPU whose numbers are not neighbours."""

    __cuda_array_interface__ = {"shape": (1, 80, 60), "strides": (9600, 120, 2)}


REFUSED: dict[str, tuple[Any, type[Exception], str]] = {
    "gradients": (Refusing(), ValueError, r"Refusing cannot be read .*detach\(\).*contiguous"),
    "foreign": (Foreign(), ValueError, "Foreign cannot be read .*int4"),
    "on a GPU": (OnGpu(), ValueError, "OnGpu cannot be read .* on the CPU"),
    "on a GPU, strided": (Strided(), ValueError, "memory is not contiguous"),
    "integers": (np.zeros((1, 80, 60), np.int32), ValueError, "int32: convert them to float32"),
    "StorageView of integers": (
        storage(np.zeros((1, 80, 60), np.int8)),
        ValueError,
        "int8: convert them to float32",
    ),
    "encoder output of integers": (
        EncoderOutput(np.zeros((1, 80, 60), np.int8)),
        ValueError,
        "from int8 to float32",
    ),
    "DLPack of integers": (DLPack(np.zeros((1, 80, 60), np.int32)), ValueError, "got int32"),
    "complex": (np.zeros((1, 80, 60), np.complex64), ValueError, "got complex64"),
    "bytes of four": (np.zeros((1, 80, 60), "V4"), ValueError, r"got \|V4"),
    "structure of two bytes": (np.zeros((1, 80, 60), "i1,i1"), ValueError, "floating point"),
    "no array": (object(), TypeError, "got object"),
    "list": ([[[1.0]]], TypeError, "got list"),
    "nothing": (None, TypeError, "got NoneType"),
    "path": (Path("speech.wav"), TypeError, "got PosixPath"),
}


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("method", ["encode", "generate", "detect_language", "align"])
def test_what_cannot_be_read_is_told(models: tuple[Whisper, Any], kind: str, method: str) -> None:
    value, error, message = REFUSED[kind]
    rest = {"generate": ([PROMPT],), "align": ([1], [[40]], FRAMES)}.get(method, ())
    with pytest.raises(error, match=message):
        getattr(models[0], method)(value, *rest)
    if isinstance(value, StorageView):
        with pytest.raises(error):
            getattr(models[1], method)(value, *rest)
