"""What `encode` returns behaves as `ctranslate2.StorageView`: both are asked in the same test."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ctranslate2 import DataType, Device, StorageView
from max.driver import Buffer, accelerator_count
from max.dtype import DType

from compat_tests.support.miniature import to_bfloat16
from compat_tests.support.numpy_runtime import random_features, storage
from whisper_max_backend.engine.api.arrays import ArrayView, EncoderOutput
from whisper_max_backend.engine.api.features import as_features, batch_size
from whisper_max_backend.engine.checkpoint.bfloat16 import rounded, widened

FLOATS = ("float32", "float16", "bfloat16")
TYPES = tuple(DataType.__members__)
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


def test_a_batch_has_as_many_items_as_its_first_dimension():
    assert [batch_size(np.zeros(shape, np.float32)) for shape in ((), (5,), (3, 2))] == [0, 5, 3]


def test_as_features_a_view_is_taken_as_it_is_or_widened():
    view = EncoderOutput(random_features((2, 3, 4)))
    assert as_features(view) is view
    for name in ("float16", "bfloat16"):
        assert as_features(view.to(name)).dtype == DataType.float32
    with pytest.raises(ValueError, match="Conversion from int8 to float32"):
        as_features(ArrayView(np.zeros((2, 3, 4), np.int8)))


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
