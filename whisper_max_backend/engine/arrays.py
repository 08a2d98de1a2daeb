"""Arrays that leave the engine: encoder outputs and logits, wrapped without a copy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import ctranslate2
    from max.driver import Buffer

_PRINTED = 6  # values shown at most
_NUMPY_TYPES = ("float32", "float16", "int8", "int16", "int32")


class ArrayView:
    """An array on the host or on a device, with the surface of ``ctranslate2.StorageView``.

    NumPy and PyTorch read it without a copy, by the array interfaces and by DLPack. The memory
    lives as long as this object or an array made from it.
    """

    def __init__(self, buffer: Buffer | npt.NDArray[Any]) -> None:
        """Wrap a contiguous array; it must not change afterwards."""
        self._buffer: Any = buffer

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

        Raises:
            ValueError: The type is not float32, float16, int8, int16 or int32.
        """
        name = dtype if isinstance(dtype, str) else dtype.name
        if name not in _NUMPY_TYPES:
            raise ValueError(f"cannot convert to {name}; choose one of {', '.join(_NUMPY_TYPES)}")
        converted = type(self)(self._on_cpu().astype(name))
        return converted if self._on_host else converted.to_device("cuda")

    def to_device(self, device: ctranslate2.Device | str) -> ArrayView:
        """The same values on another device, ``"cpu"`` or ``"cuda"``.

        Raises:
            ValueError: No such device.
        """
        name = device if isinstance(device, str) else device.name
        if name not in ("cpu", "cuda"):
            raise ValueError(f"unsupported device {name}")
        if name == self.device:
            return self
        if name == "cpu":
            return type(self)(self._buffer.to(_driver().CPU()))
        if _driver().accelerator_count() == 0:
            raise ValueError("there is no GPU to copy to")
        return type(self)(_driver().Buffer.from_dlpack(self._buffer).to(_driver().Accelerator()))

    def __repr__(self) -> str:
        values = self._on_cpu().ravel()
        half = _PRINTED // 2
        shown = [f"{value:g}" for value in values[: half if values.size > _PRINTED else None]]
        if values.size > _PRINTED:
            shown += ["...", *(f"{value:g}" for value in values[-half:])]
        sizes = "x".join(map(str, self.shape)) or "scalar"
        place = f"{self.device}:{self.device_index}"
        return f" {' '.join(shown)}\n[{place} {self._type_name} storage viewed as {sizes}]"

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
        if self._type_name != "bfloat16":
            return np.asarray(self._buffer.to_numpy())
        from max.dtype import DType

        bits = self._buffer.view(DType.uint16).to_numpy().astype(np.uint32) << 16
        return np.asarray(bits.view(np.float32))

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
        part = self._buffer[start : max(start, stop) : step, :, :]
        if isinstance(part, np.ndarray):
            return EncoderOutput(np.ascontiguousarray(part))
        return EncoderOutput(part if part.is_contiguous else part.contiguous())

    __iter__ = None  # a batch item alone has no batch dimension, so it could not be given back


def _driver() -> Any:
    import max.driver

    return max.driver
