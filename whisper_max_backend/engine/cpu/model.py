"""One model on the CPU: compiled graphs, weights in the layout of the kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from max.driver import CPU, Buffer, Device

from ...system.cancellation import NEVER, StopFlag
from ...system.cores import thread_count
from ..checkpoint.load import Checkpoint, dense
from ..checkpoint.weight_dtypes import Storage, storage_for
from ..compile.artifacts import ArtifactSpec, compiled
from ..compile.session import Session
from .decoder import CPUDecoder
from .graphs.signatures import ENCODE
from .kept_weights import kept_weights

if TYPE_CHECKING:
    from max.graph import Module

_ENCODINGS = "encoder/position_encodings/encodings"


class CPUModel:
    """Encodes windows, and has the decoder. Calls of several threads at once are legal."""

    log_mel = None
    """The transform has no kernel of the model's own: all models of a process share one."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        compute_type: str = "float32",
        threads: int = 0,
    ) -> None:
        """Load a model.

        Args:
            checkpoint: Weights and dimensions.
            compute_type: What the kernels compute in: ``"float32"``, ``"bfloat16"`` or
                ``"int8_float32"``.
            threads: Threads that compute; 0 for one a core.
        """
        self.dimensions = checkpoint.dimensions
        self._device: Device = CPU()
        # One pool of threads serves all sessions of a process; a second session that asked for
        # another number would end the process.
        session = Session([self._device])
        storage = storage_for(checkpoint, compute_type)
        artifact = compiled(**cpu_artifact(storage, self._device, session))
        count = thread_count(threads)
        self._threads = self.to_device(np.array([count], np.int32))
        weights = kept_weights(checkpoint, storage, count)
        self._weights = weights.encoder.to(self._device)
        d = self.dimensions
        self._heads = self.to_device(np.array([d.n_audio_head], np.int32))
        self._layers = self.to_device(np.array([d.n_audio_layer], np.int32))
        self._graphs = session.init_all(artifact)
        # A copy: the file may change while the model is in use.
        self._encodings = np.array(dense(checkpoint.weights, _ENCODINGS))
        self.decoder = CPUDecoder(self._graphs, weights, storage, d, self._device, count)

    def encode(self, features: np.ndarray, stop: StopFlag = NEVER) -> Buffer:
        """Encoder states of log-mel features.

        Args:
            features: float32 ``[batch, n_mels, frames]``.
            stop: Ends the work, within a block of a layer.

        Returns:
            float32 ``[batch, (frames + 1) // 2, n_audio_state]``.

        Raises:
            Cancelled: It was stopped.
        """
        states = (features.shape[2] + 1) // 2
        (output,) = self._graphs["encode"].execute(
            *ENCODE.ordered(
                features=self.to_device(np.ascontiguousarray(features)),
                encodings=self.to_device(self._encodings[:states]),
                weights=self._weights,
                heads=self._heads,
                layers=self._layers,
                stop=Buffer.from_numpy(stop.array),
                threads=self._threads,
            )
        )
        stop.check()
        return output

    def to_device(self, array: object) -> Buffer:
        """The array on this device; without a copy if it is there already."""
        if isinstance(array, Buffer):
            return array.to(self._device)
        return Buffer.from_numpy(np.asarray(array)).to(self._device)


def cpu_artifact(storage: Storage, device: Device, session: Session) -> ArtifactSpec:
    """What `compiled` is to compile: it serves every model whose numbers are kept so."""

    def build() -> Module:
        from max.graph import DeviceRef

        from .graphs.module import build_module

        return build_module(DeviceRef.from_device(device), storage)

    return {
        "name": f"whisper-{storage.name}",
        "build": build,
        "key": {"storage": storage.name},
        "session": session,
        "about_seconds": 45,
    }
