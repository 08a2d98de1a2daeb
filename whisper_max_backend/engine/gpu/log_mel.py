"""The log-mel kernel of a GPU."""

from __future__ import annotations

import numpy as np
from max.driver import Buffer, Device
from max.dtype import DType

from ...system.fork_and_exit import DroppedInside
from ..compile.session import LoadedGraph
from ..graphs.stft_tables import tables
from ..state.device_locks import locks_of


class GPULogMel(DroppedInside):
    """The kernel of a device as a function of arrays on the host.

    The samples go up once. The features come back, because faster-whisper cuts them into windows.
    """

    def __init__(self, model: LoadedGraph, device: Device) -> None:
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
        with locks_of(self._device).beside:
            made = Buffer(DType.float32, features.shape, self._device)
            self._model.execute(
                made, self._up(waveform), self._up(filters), *self._tables, np.int64(padded)
            )
            features[...] = made.to_numpy()

    def _up(self, array: np.ndarray) -> Buffer:
        return Buffer.from_numpy(array).to(self._device)
