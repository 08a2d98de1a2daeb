"""Arrays that look like ``ctranslate2.StorageView``, and callers' arrays as NumPy's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ...system.fork_and_exit import DroppedInside, inside_max
from ..checkpoint.bfloat16 import rounded, widened

if TYPE_CHECKING:
    import ctranslate2
    from max.driver import Buffer

_PRINTED = 6  # values shown at most
_NUMPY_TYPES = ("float32", "float16", "int8", "int16", "int32")
_FLOATS = ("float32", "float16", "bfloat16")


class ArrayView(DroppedInside):
    """An array on the host or on a device, with the surface of ``ctranslate2.StorageView``.

    NumPy and PyTorch read it without a copy, by the array interfaces and by DLPack. The memory
    lives as long as this object or an array made from it.
    """

    def __init__(self, buffer: Buffer | npt.NDArray[Any]) -> None:
        """Wrap a contiguous array; it must not change afterwards."""
        self._buffer: Any = buffer

    @classmethod
    def from_array(cls, array: Any) -> ArrayView:
        """A view of what has the array interface, as ``ctranslate2.StorageView`` makes one.

        Raises:
            ValueError: No array interface, or one of another type than float32, float16, int8,
                int16 and int32, not contiguous, or read-only.
        """
        import ctranslate2

        return cls(np.asarray(ctranslate2.StorageView.from_array(array)))

    @property
    def buffer(self) -> Any:
        """The array itself: a MAX buffer, or a NumPy array."""
        return self._buffer

    @property
    def shape(self) -> list[int]:
        """Size of each dimension."""
        return list(self._buffer.shape)

    @property
    def device(self) -> str:
        """Where the array is: ``"cpu"`` or ``"cuda"``."""
        return "cpu" if self._on_host else "cuda"

    @property
    def device_index(self) -> int:
        """Index of the device."""
        return 0 if isinstance(self._buffer, np.ndarray) else int(self._buffer.device.id)

    @property
    def dtype(self) -> ctranslate2.DataType:
        """Data type, as CTranslate2 names it."""
        import ctranslate2

        return getattr(ctranslate2.DataType, self._type_name)

    @property
    def __array_interface__(self) -> dict[str, Any]:
        if not self._on_host:
            raise AttributeError("an array on a GPU has no __array_interface__")
        return self._interface()

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        if self._on_host:
            raise AttributeError("an array on the CPU has no __cuda_array_interface__")
        return self._interface()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """The values as a NumPy array; an array on a GPU is copied to the host."""
        values = self._on_cpu()
        return np.array(values, dtype=dtype) if copy else np.asarray(values, dtype=dtype)

    def __dlpack__(self, **options: Any) -> Any:
        """Share the memory by DLPack; the options are those of the array API standard."""
        return self._buffer.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        """DLPack's device type and index."""
        kind, index = self._buffer.__dlpack_device__()
        return int(kind), int(index)

    def to(self, dtype: ctranslate2.DataType | str) -> ArrayView:
        """A copy in another data type, on the same device.

        Args:
            dtype: float32, float16 or bfloat16, or the type that the array has.

        Raises:
            TypeError: Not a data type.
            ValueError: There is no conversion to this type, nor is there in CTranslate2.
        """
        import ctranslate2

        if not isinstance(dtype, ctranslate2.DataType | str):
            raise TypeError(f"dtype must be a ctranslate2.DataType or its name, got {dtype!r}")
        name = dtype if isinstance(dtype, str) else dtype.name
        if name != self._type_name and not {name, self._type_name} <= set(_FLOATS):
            raise ValueError(
                f"Conversion from {self._type_name} to {name} is not yet implemented: choose one "
                f"of {', '.join(_FLOATS)}, or convert np.array(array)"
            )
        values = self._on_cpu()
        with np.errstate(over="ignore"):  # beyond float16 is infinite, as there
            view = type(self)(_bfloat16(values) if name == "bfloat16" else values.astype(name))
        return view if self._on_host else type(self)(view._buffer_on(self._buffer.device))

    def to_device(self, device: ctranslate2.Device | str) -> ArrayView:
        """A copy on another device, ``"cpu"`` or ``"cuda"``, or on the same.

        Raises:
            TypeError: Not a device.
            ValueError: No device has this name.
            RuntimeError: There is no GPU.
        """
        import ctranslate2

        if not isinstance(device, ctranslate2.Device | str):
            raise TypeError(f"device must be a ctranslate2.Device or its name, got {device!r}")
        name = device if isinstance(device, str) else device.name
        if name not in ("cpu", "cuda"):
            raise ValueError(f"unsupported device {name}: choose cpu or cuda")
        if name == self.device:
            with inside_max.buffers():
                copy = self._buffer.copy()
                if not isinstance(copy, np.ndarray):
                    copy.device.synchronize()  # MAX's copies are not done when the call returns
                return type(self)(copy)
        if name == "cpu":
            return type(self)(self._buffer_on(_driver().CPU()))
        if _driver().accelerator_count() == 0:
            raise RuntimeError("there is no GPU to copy to: keep the array on the CPU")
        return type(self)(self._buffer_on(_driver().Accelerator()))

    def __repr__(self) -> str:
        values = self._on_cpu().ravel()
        half = _PRINTED // 2
        shown = [f"{value:g}" for value in values[: half if values.size > _PRINTED else None]]
        if values.size > _PRINTED:
            shown += ["...", *(f"{value:g}" for value in values[-half:])]
        sizes = "x".join(map(str, self.shape)) or "scalar"
        place = f"{self.device}:{self.device_index}"
        line = "".join(f" {value}" for value in shown)
        return f"{line}\n[{place} {self._type_name} storage viewed as {sizes}]"

    @property
    def _on_host(self) -> bool:
        return isinstance(self._buffer, np.ndarray) or bool(self._buffer.device.is_host)

    @property
    def _type_name(self) -> str:
        dtype = self._buffer.dtype
        return dtype.name if isinstance(dtype, np.dtype) else str(dtype.name).lower()

    def _on_cpu(self) -> npt.NDArray[Any]:
        """The values as a NumPy array: shared where it is possible, bfloat16 widened."""
        if isinstance(self._buffer, np.ndarray):
            return self._buffer
        if self._on_host and self._type_name in _NUMPY_TYPES:
            return np.asarray(self)  # keeps this object, which the end of the process waits for
        from max.dtype import DType

        with inside_max.buffers():
            if self._type_name == "bfloat16":
                return widened(self._buffer.view(DType.uint16, self._buffer.shape).to_numpy())
            return np.array(self._buffer.to_numpy())  # not MAX's to drop

    def _buffer_on(self, device: Any) -> Any:
        """A MAX buffer of the same values on a device."""
        with inside_max.buffers():
            return _driver().Buffer.from_dlpack(self._buffer).to(device)

    def _interface(self) -> dict[str, Any]:
        """The array interface, version 3: https://numpy.org/doc/stable/reference/arrays.interface.html"""
        name = self._type_name
        if name not in _NUMPY_TYPES:
            raise RuntimeError(
                f"Data type {name} is not supported in the array interface; convert the array "
                'first, for example with `array = array.to("float32")`'
            )
        raw = self._buffer
        address = raw.ctypes.data if isinstance(raw, np.ndarray) else raw._data_ptr()
        return {
            "shape": tuple(self.shape),
            "typestr": np.dtype(name).str,
            "data": (address, False),
            "version": 3,
        }


class EncoderOutput(ArrayView):
    """Encoded audio ``[batch, positions, state]``, to be given back to the model."""

    def __init__(
        self,
        buffer: Buffer | npt.NDArray[Any],
        features: npt.NDArray[np.float32] | None = None,
    ) -> None:
        """Wrap encoder states, and what they were made of, which must not change either."""
        super().__init__(buffer)
        self.features = features

    def __len__(self) -> int:
        """Number of batch items."""
        return self.shape[0]

    def __getitem__(self, items: slice) -> EncoderOutput:
        """Some of the batch items, without a copy where they are neighbours.

        Raises:
            TypeError: The index is not a slice; ``output[i : i + 1]`` is one item as a batch.
        """
        if not isinstance(items, slice):
            raise TypeError(
                "encoder outputs are taken by slices of the batch, such as output[0:1], "
                f"got {items!r}; np.array(output) allows any index"
            )
        start, stop, step = items.indices(len(self))
        with inside_max.buffers():
            part = self._buffer[start : max(start, stop) : step, :, :]
            if isinstance(part, np.ndarray):
                return EncoderOutput(np.ascontiguousarray(part))
            return EncoderOutput(_contiguous(part))

    __iter__ = None  # a batch item alone has no batch dimension, so it could not be given back


def read(value: Any) -> npt.NDArray[Any]:
    """An array of another library, on the host; without a copy where that is possible.

    Args:
        value: A NumPy array, a ``ctranslate2.StorageView``, or anything with an array interface
            or DLPack. Where an array interface says two bytes of no type (``V2``), these are
            bfloat16, as PyTorch and ml_dtypes have it; bfloat16 is widened to float32.

    Raises:
        TypeError: Not an array.
        ValueError: An array that cannot be read.
    """
    try:
        array = _host_array(value)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"this {type(value).__name__} cannot be read as an array "
            f"({str(error).partition(chr(10))[0]}): pass it as a contiguous float32 array on the "
            "CPU, detached from any graph of gradients"
        ) from error
    if array is None:
        raise TypeError(
            "features must be a ctranslate2.StorageView, a NumPy array or another array, got "
            f"{type(value).__name__}"
        )
    if array.dtype.kind == "V" and array.dtype.itemsize == 2 and array.dtype.names is None:
        return widened(array.view(np.uint16))
    return array


def _host_array(value: Any) -> npt.NDArray[Any] | None:
    import ctranslate2

    if isinstance(value, ctranslate2.StorageView):
        if value.device != "cpu":
            value = value.to_device(ctranslate2.Device.cpu)
        if value.dtype == ctranslate2.DataType.bfloat16:
            value = value.to(ctranslate2.DataType.float32)
    if isinstance(value, _driver().Buffer):
        with inside_max.buffers():
            return ArrayView(_contiguous(value)).__array__()
    if hasattr(value, "__array_interface__"):
        return np.asarray(value)
    if hasattr(value, "__dlpack__"):
        return _from_dlpack(value)
    return np.asarray(value) if hasattr(value, "__array__") else None


def _contiguous(buffer: Buffer) -> Buffer:
    """The buffer, or a copy without gaps, made of its largest pieces that have none.

    ``Buffer.contiguous`` copies number by number in Python.
    """
    if buffer.is_contiguous:
        return buffer
    copy: Buffer = _driver().Buffer(buffer.dtype, buffer.shape, buffer.device)
    _copy_pieces(buffer, copy)
    copy.device.synchronize()  # MAX's copies are not done when the call returns
    return copy


def _copy_pieces(source: Buffer, target: Buffer) -> None:
    if source.is_contiguous:
        target.inplace_copy_from(source)
        return
    whole = [slice(0, size) for size in source.shape[1:]]
    for index in range(source.shape[0]):
        piece = (index, *whole)
        _copy_pieces(source[piece], target[piece])


def _from_dlpack(value: Any) -> npt.NDArray[Any] | None:
    try:
        return np.from_dlpack(value)
    except (BufferError, RuntimeError):  # NumPy reads host memory and its own types only
        # MAX reads the rest, in the order of memory, whatever the strides are.
        if getattr(value, "__cuda_array_interface__", {}).get("strides") is not None:
            raise ValueError("its memory is not contiguous") from None
        with inside_max.buffers():
            return _host_array(_driver().Buffer.from_dlpack(value))


def _bfloat16(values: npt.NDArray[np.floating]) -> Any:
    """A MAX buffer on the host of the values in bfloat16."""
    from max.dtype import DType

    quiet = np.where(np.isnan(values), np.float32(np.nan), values)
    with inside_max.buffers():
        return _driver().Buffer.from_numpy(rounded(quiet)).view(DType.bfloat16, values.shape)


def _driver() -> Any:
    import max.driver

    return max.driver
