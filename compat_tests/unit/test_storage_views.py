"""What `encode` returns behaves as `ctranslate2.StorageView`; half precision is taken and given.

Both sides are asked the same in the same test. PyTorch, ml_dtypes and the like are not installed:
classes here offer what those offer.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ctranslate2 import DataType, Device, StorageView
from max.driver import Buffer, accelerator_count
from max.dtype import DType

from compat_tests.support.miniature import ARCHITECTURES, make_model, to_bfloat16
from compat_tests.support.numpy_runtime import both, random_features, storage
from whisper_max_backend.engine.api.arrays import ArrayView, EncoderOutput
from whisper_max_backend.engine.checkpoint.bfloat16 import rounded, widened
from whisper_max_backend.engine.whisper import Whisper

FLOATS = ("float32", "float16", "bfloat16")
TYPES = tuple(DataType.__members__)
BATCH, FRAMES = 2, 60
PROMPT = ["<|startoftranscript|>", "<|en|>", "<|transcribe|>"]
EDGES = np.array(
    # Ties, and what float16 or bfloat16 can hold no longer.
    [0, -0.0, 1.00390625, 1.01171875, 65504, 65520, -1e5, 1e-8, -6e-8, 1e-45, 3.4e38, np.inf]
    + [-np.inf, np.nan],
    np.float32,
)


def answer(ask: Callable[[], Any]) -> Any:
    """What a call returns, in a form that can be compared, or the type of its error."""
    try:
        result = ask()
    except Exception as error:
        return type(error)
    if isinstance(result, ArrayView | StorageView):
        place = result.device, result.device_index, result.dtype, result.shape
        return *place, np.array(result.to(DataType.float32)).tobytes()
    return result.tobytes() if isinstance(result, np.ndarray) else result


def pairs(values: np.ndarray) -> dict[str, tuple[EncoderOutput, StorageView]]:
    """Values in every float type and memory, beside the reference's view of them."""
    ours, reference = EncoderOutput(values), storage(values.copy())
    views = {name: (ours.to(name), reference.to(getattr(DataType, name))) for name in FLOATS}
    views["max"] = EncoderOutput(Buffer.from_numpy(values.copy())), reference
    return views  # type: ignore[return-value]


@pytest.fixture(params=[*FLOATS, "max"])
def views(request: pytest.FixtureRequest) -> tuple[EncoderOutput, StorageView]:
    values = random_features((2, 3, 4)) * 100
    return pairs(values)[request.param]


# What a view offers


ASKED: dict[str, Callable[[Any], Any]] = {
    "shape": lambda view: view.shape,
    "dtype": lambda view: view.dtype,
    "device": lambda view: view.device,
    "device_index": lambda view: view.device_index,
    "repr": repr,
    "str": str,
    "array": np.array,
    "array of float32": lambda view: np.asarray(view, dtype=np.float32),
    "array interface": lambda view: {**view.__array_interface__, "data": None},
    "read-only": lambda view: view.__array_interface__["data"][1],
    "cuda array interface": lambda view: view.__cuda_array_interface__,
    "hasattr cuda": lambda view: hasattr(view, "__cuda_array_interface__"),
    "view of it": StorageView.from_array,
    "view by its class": lambda view: type(view).from_array(view),
    "to_device cpu": lambda view: view.to_device(Device.cpu),
    "to_device by keyword": lambda view: view.to_device(device=Device.cpu),
    "to_device nothing": lambda view: view.to_device(None),
    "to_device a type": lambda view: view.to_device(DataType.float16),
    "to nothing": lambda view: view.to(None),
    "to a number": lambda view: view.to(1),
    "to a device": lambda view: view.to(Device.cpu),
    "to by keyword": lambda view: view.to(dtype=DataType.bfloat16),
    "true": bool,
    "hashable": lambda view: view in {view},
    "equal to itself": lambda view: view == view,
    "equal to a copy": lambda view: view == view.to(view.dtype),
}


@pytest.mark.parametrize("name", ASKED)
def test_a_view_answers_as_the_reference(views: tuple[EncoderOutput, StorageView], name: str):
    ours, reference = views
    assert answer(lambda: ASKED[name](ours)) == answer(lambda: ASKED[name](reference))


@pytest.mark.parametrize("target", TYPES)
def test_conversions_are_those_of_the_reference(
    views: tuple[EncoderOutput, StorageView], target: str
):
    ours, reference = views
    dtype = getattr(DataType, target)
    assert answer(lambda: ours.to(dtype)) == answer(lambda: reference.to(dtype))
    assert answer(lambda: ours.to(target)) == answer(lambda: reference.to(dtype))


@pytest.mark.parametrize("values", [EDGES, EDGES[:0], EDGES[2]], ids=["edges", "empty", "scalar"])
@pytest.mark.parametrize("source", [*FLOATS, "max"])
@pytest.mark.parametrize("target", FLOATS)
def test_rounding_is_that_of_the_reference(values: np.ndarray, source: str, target: str):
    ours, reference = pairs(np.array(values))[source]
    dtype = getattr(DataType, target)
    converted, expected = ours.to(dtype), reference.to(dtype)
    assert converted.dtype == expected.dtype == dtype
    np.testing.assert_array_equal(
        np.array(converted.to("float32")), np.array(expected.to(DataType.float32))
    )
    assert repr(converted).replace("-nan", "nan") == repr(expected).replace("-nan", "nan")


@pytest.mark.parametrize("source", ["float32", "float16", "max"])
@pytest.mark.parametrize("method", ["to", "to_device"])
def test_conversions_are_copies(source: str, method: str):
    """So that who writes into one does not change the other."""
    for view in pairs(random_features((2, 3, 4)))[source]:
        copy = getattr(view, method)(view.dtype if method == "to" else Device.cpu)
        before = np.array(copy)
        np.asarray(view)[:] = -1
        np.testing.assert_array_equal(np.array(copy), before)


def test_a_missing_gpu_is_told(views: tuple[EncoderOutput, StorageView]):
    if accelerator_count() > 0:
        pytest.skip("there is a GPU")
    ours, reference = views
    for device in (Device.cuda, "cuda"):
        with pytest.raises(RuntimeError, match="no GPU"):
            ours.to_device(device)
    assert answer(lambda: reference.to_device(Device.cuda)) is RuntimeError


def test_errors_name_what_there_is():
    view = EncoderOutput(np.zeros((1, 2, 3), np.float32))
    with pytest.raises(ValueError, match="from float32 to int8 .* float32, float16, bfloat16"):
        view.to(DataType.int8)
    with pytest.raises(ValueError, match="from float32 to float64"):
        view.to("float64")
    with pytest.raises(TypeError, match=r"DataType or its name, got <class 'numpy.float16'>"):
        view.to(np.float16)
    with pytest.raises(ValueError, match="unsupported device tpu: choose cpu or cuda"):
        view.to_device("tpu")
    with pytest.raises(RuntimeError, match=r"bfloat16 is not .* array.to\(\"float32\"\)"):
        np.array(view.to("bfloat16"))


def test_bfloat16_is_shared_by_dlpack():
    values = random_features((2, 3, 4))
    view = EncoderOutput(values).to(DataType.bfloat16)
    shared = Buffer.from_dlpack(view)
    assert shared.dtype == DType.bfloat16
    np.testing.assert_array_equal(shared.view(DType.uint16).to_numpy(), to_bfloat16(values))


ARRAYS: dict[str, Any] = {
    **{name: np.ones((2, 3), name) for name in ("float32", "float16", "int8", "int16", "int32")},
    **{name: np.ones((2, 3), name) for name in ("float64", "int64", "uint8", "bool", ">f8")},
    "strided": np.ones((2, 3), np.float32).T,
    "read-only": np.frombuffer(bytes(8), np.float32),
    "empty": np.zeros((0, 3), np.float32),
    "scalar": np.array(1, np.float32),
    "list": [1.0],
    "nothing": None,
}


@pytest.mark.parametrize("name", ARRAYS)
def test_views_of_arrays_are_the_reference_views(name: str):
    def described(cls: Any) -> tuple[Any, ...]:
        view = cls.from_array(ARRAYS[name])
        same = view.to(view.dtype)
        return type(view), view.shape, view.dtype, np.array(same).tolist(), repr(view)

    ours, expected = (
        answer(lambda: described(EncoderOutput)),
        answer(lambda: described(StorageView)),
    )
    if not isinstance(expected, type):
        assert ours[0] is EncoderOutput
        ours, expected = ours[1:], expected[1:]
    assert ours == expected


@pytest.mark.parametrize("source", ["int8", "int16", "int32"])
@pytest.mark.parametrize("target", TYPES)
def test_integers_are_converted_as_in_the_reference(source: str, target: str):
    values = np.arange(6, dtype=source)
    dtype = getattr(DataType, target)

    def converted(cls: Any) -> list[int]:
        return list(np.array(cls.from_array(values).to(dtype)).tolist())

    assert answer(lambda: converted(EncoderOutput)) == answer(lambda: converted(StorageView))


def test_a_view_keeps_its_memory():
    values = random_features((2, 3, 4))
    view = EncoderOutput.from_array(values.copy())
    gc.collect()
    np.testing.assert_array_equal(np.array(view), values)


# Half precision as features and as encoder output


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


def test_bits_of_bfloat16():
    """Every bfloat16 stays itself; what lies between goes to the nearer, or to the even one."""
    bits = np.arange(2**16, dtype=np.uint16)
    values = widened(bits)
    numbers = ~np.isnan(values)
    np.testing.assert_array_equal(rounded(values)[numbers], bits[numbers])
    finite = np.abs(values) < widened(np.array([0x7F7F], np.uint16))
    step = widened(bits[finite] + np.uint16(1)).astype(np.float64) - values[finite]
    middle = (values[finite] + step / 2).astype(np.float32)
    np.testing.assert_array_equal(rounded(middle), bits[finite] + bits[finite] % 2)
