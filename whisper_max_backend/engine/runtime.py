"""One model on one device: compiled graphs, weights in the layout of the kernels."""

from __future__ import annotations

import dataclasses
import threading

import numpy as np
from max.driver import CPU, Buffer, Device
from max.dtype import DType
from max.engine import InferenceSession, Model
from max.graph import DeviceRef

from .artifacts import compiled
from .checkpoint import Checkpoint, dense
from .decoder import Decoder
from .graphs.layers import PANEL
from .graphs.module import build_module

_ENCODINGS = "encoder/position_encodings/encodings"


class Runtime:
    """Encodes windows, and has the decoder. Calls of several threads at once are legal."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        device: str = "cpu",
        device_index: int = 0,
        compute_type: str = "float32",
        threads: int = 0,
    ) -> None:
        """Load a model.

        Args:
            checkpoint: Weights and dimensions.
            device: ``"cpu"``.
            device_index: Which of several devices of that kind.
            compute_type: What the kernels compute in: ``"float32"``.
            threads: Threads that compute; 0 for one a core.
        """
        self.dimensions = checkpoint.dimensions
        self._device: Device = CPU(device_index)
        heads = [(int(layer), int(head)) for layer, head in checkpoint.config["alignment_heads"]]
        session = InferenceSession(devices=[self._device], num_threads=threads or None)
        artifact = compiled(
            "whisper",
            lambda: build_module(self.dimensions, heads, DeviceRef.from_device(self._device)),
            key={
                **dataclasses.asdict(self.dimensions),
                "alignment_layers": sorted({layer for layer, _ in heads}),
                "compute_type": compute_type,
            },
            session=session,
        )
        self._weights = {name: _packed(name, dense(checkpoint.weights, name)) for name in checkpoint.weight_names()}
        self._models = session.init_all(artifact, weights_registry=self._weights)
        self._encodings = dense(checkpoint.weights, _ENCODINGS)
        self.decoder = Decoder(self._models, self.dimensions, self._device)

    def encode(self, features: np.ndarray) -> Buffer:
        """Encoder states of log-mel features.

        Args:
            features: float32 ``[batch, n_mels, frames]``.

        Returns:
            float32 ``[batch, (frames + 1) // 2, n_audio_state]``.
        """
        states = (features.shape[2] + 1) // 2
        (output,) = self._models["encode"].execute(
            self.to_device(np.ascontiguousarray(features)),
            self.to_device(self._encodings[:states]),
        )
        return output

    def to_device(self, array: object) -> Buffer:
        """The array on this device; without a copy if it is there already."""
        if isinstance(array, Buffer):
            return array.to(self._device)
        return Buffer.from_numpy(np.asarray(array)).to(self._device)


def _packed(name: str, weight: np.ndarray) -> np.ndarray:
    """A weight in the layout of the kernels: dense ones in column panels, others as they are.

    A convolution ``[out, in, kernel]`` becomes a dense weight over ``[kernel, in]``.
    """
    if not name.endswith("/weight"):
        return weight
    if weight.ndim == 3:
        weight = weight.transpose(0, 2, 1).reshape(len(weight), -1)
    outputs, inputs = weight.shape
    panels = -(-outputs // PANEL)
    packed = np.zeros((panels, inputs, PANEL), np.float32)
    whole = outputs // PANEL
    packed[:whole] = weight[: whole * PANEL].reshape(whole, PANEL, inputs).transpose(0, 2, 1)
    packed[whole:, :, : outputs % PANEL] = weight[whole * PANEL :].T
    return packed
