"""The log-mel kernel of a GPU."""

from __future__ import annotations

import numpy as np
from max.driver import Buffer, Device
from max.dtype import DType

from ...system.fork_and_exit import DroppedInside
from ..compile.session import LoadedGraph
from ..graphs.stft_tables import LOG_MEL, tables
from ..state.device_locks import locks_of


class GPULogMel(DroppedInside):
    """The kernel of a device as a function of arrays on the host.

    The samples go up once. The features come back, because faster-whisper cuts them into windows.
    """

    def __init__(self, model: LoadedGraph, device: Device) -> None:
        self._model = model
        self._device = device
        self._tables = {name: self._up(table) for name, table in tables().items()}

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
            inputs = LOG_MEL.ordered(
                features=made,
                waveform=self._up(waveform),
                filters=self._up(filters),
                padded=np.int64(padded),
                **self._tables,
            )
            self._model.execute(*inputs)
            features[...] = made.to_numpy()

    def _up(self, array: np.ndarray) -> Buffer:
        return Buffer.from_numpy(array).to(self._device)
