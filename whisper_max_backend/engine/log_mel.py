"""The log-mel transform: its tables, and its kernel on a GPU."""

from __future__ import annotations

import numpy as np
from max.driver import Buffer, Device
from max.dtype import DType

from .session import Model

N_FFT = 400
HOP_LENGTH = 160
BINS = N_FFT // 2 + 1


def tables() -> tuple[np.ndarray, np.ndarray]:
    """The window ``[N_FFT]`` and ``exp(-2 pi i k / N_FFT)`` ``[N_FFT, 2]``, float32."""
    window = np.hanning(N_FFT + 1)[:-1].astype(np.float32)
    angles = -2 * np.pi / N_FFT * np.arange(N_FFT)
    return window, np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


class DeviceLogMel:
    """The kernel of a device as a function of arrays on the host.

    The samples go up once. The features come back, because faster-whisper cuts them into windows.
    """

    def __init__(self, model: Model, device: Device) -> None:
        self._model = model
        self._device = device
        self._tables = [self._up(table) for table in tables()]

    def __call__(
        self, features: np.ndarray, waveform: np.ndarray, filters: np.ndarray, padded: int
    ) -> None:
        """Fills ``features [items, n_mels, frames]`` from ``waveform [items, samples]``.

        Args:
            features: float32, written.
            waveform: float32.
            filters: float32 ``[n_mels, bins]``.
            padded: Samples with the zeros that follow them.
        """
        made = Buffer(DType.float32, features.shape, self._device)
        self._model.execute(
            made, self._up(waveform), self._up(filters), *self._tables, np.int64(padded)
        )
        features[...] = made.to_numpy()

    def _up(self, array: np.ndarray) -> Buffer:
        return Buffer.from_numpy(array).to(self._device)
