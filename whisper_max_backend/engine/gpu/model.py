"""One model on one GPU: compiled graphs, and weights on the device."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from max.driver import Buffer, Device
from max.dtype import DType
from max.graph import DeviceRef

from ...system.cancellation import NEVER, StopFlag
from ..api.devices import check_memory
from ..checkpoint.dimensions import Dimensions
from ..checkpoint.load import Checkpoint
from ..checkpoint.weight_dtypes import gpu_types
from ..compile.artifacts import ArtifactSpec, compiled
from ..compile.session import Session
from ..cpu.model_independent_graphs import common_graphs
from .captured_graphs import CapturedGraphs
from .decoder import GPUDecoder
from .graphs.module import build_module
from .graphs.signatures import Signatures
from .log_mel import GPULogMel
from .proofs import proven
from .weights import gpu_weights, weight_bytes

WINDOWS = 8
"""Windows that are encoded at once: more are no faster, and their activations need memory."""


class GPUModel:
    """Encodes windows, and has the decoder; the counterpart of `CPUModel`."""

    def __init__(self, checkpoint: Checkpoint, device: Device, compute_type: str) -> None:
        """Load a model.

        Args:
            checkpoint: Weights and dimensions.
            device: A GPU, or for tests the CPU.
            compute_type: ``"float32"``, ``"float16"`` or ``"bfloat16"``; after ``"int8_"``, the
                decoder keeps its matrices in int8, and computes in that type.
        """
        self.dimensions = checkpoint.dimensions
        self._device = device
        dtype, storage = gpu_types(compute_type)
        check_memory(memory_needed(self.dimensions, compute_type), device)
        session = Session([device])
        generation = proven(device, dtype, session)
        spec = gpu_artifact(self.dimensions, compute_type, device, session, generation)
        artifact = compiled(**spec)
        self._graphs = session.init_all(artifact)
        self.weights = gpu_weights(checkpoint, dtype, storage, device, self._graphs)
        graphs = {**self._graphs, "dtw": common_graphs()["dtw"]}
        self.log_mel = GPULogMel(graphs["log_mel"], device)
        signatures = Signatures(self.dimensions, dtype, storage)
        self._signature = signatures.encode
        # Each keeps its activations. Nearly all windows have one length.
        self._captured = CapturedGraphs(device, "windows of audio", most=2)
        self.decoder = GPUDecoder(graphs, signatures, self.weights, self.dimensions, device, dtype)

    def encode(self, features: np.ndarray | Buffer, stop: StopFlag = NEVER) -> Buffer:
        """Encoder states of log-mel features.

        Args:
            features: float32 ``[batch, n_mels, frames]``.
            stop: Ends the work after some windows.

        Returns:
            float32 ``[batch, (frames + 1) // 2, n_audio_state]``.

        Raises:
            Cancelled: It was stopped.
        """
        batch, _, frames = features.shape
        states = (frames + 1) // 2
        if batch <= WINDOWS:
            return self._encode(features, states)
        shape = (batch, states, self.dimensions.n_audio_state)
        output = Buffer(DType.float32, shape, self._device)
        for start in range(0, batch, WINDOWS):
            stop.check()
            encoded = self._encode(features[start : start + WINDOWS, :, :], states)
            output[start : start + WINDOWS, :, :].inplace_copy_from(encoded)
        self._device.synchronize()  # a copy within the CPU's memory is not done when it returns
        return output

    def _encode(self, features: np.ndarray | Buffer, states: int) -> Buffer:
        def inputs(uploaded: Mapping[str, Buffer]) -> list[Buffer]:
            encodings = self.weights.encodings[:states, :]
            return self._signature.ordered(**uploaded, encodings=encodings, **self.weights.encoder)

        encode = self._graphs["encode"]
        # Several windows keep the device busy while their kernels are launched.
        if features.shape[0] > 1 or isinstance(features, Buffer):
            (output,) = encode.execute(*inputs({"features": self.to_device(features)}))
            return output
        execution = self._captured.execute(encode, states, {"features": features}, (), inputs)
        (output,) = execution.lasting_results()
        return output

    def to_device(self, array: object) -> Buffer:
        """The array on this device; without a copy if it is there already."""
        if isinstance(array, Buffer):
            return array.to(self._device)
        return Buffer.from_numpy(np.ascontiguousarray(array)).to(self._device)


def gpu_artifact(
    dimensions: Dimensions, compute_type: str, device: Device, session: Session, generation: int
) -> ArtifactSpec:
    """What `compiled` is to compile: it serves every model of these dimensions.

    `generation` is that of the tensor cores (`proofs.proven`).
    """
    types = gpu_types(compute_type)
    return {
        "name": f"whisper-{device.api}-{compute_type}",
        "build": lambda: build_module(
            DeviceRef.from_device(device), device.api, *types, dimensions, generation
        ),
        "key": {
            "compute_type": compute_type,
            "generation": generation,
            **dataclasses.asdict(dimensions),
        },
        "session": session,
        "about_seconds": 180,
    }


def memory_needed(d: Dimensions, compute_type: str) -> int:
    """Bytes that a model needs to transcribe one window with five beams."""
    dtype, storage = gpu_types(compute_type)
    size = int(dtype.size_in_bytes)
    states = d.n_audio_ctx * d.n_audio_state
    # What lives at once in an encoder layer: residual, norm, queries, keys, values, hidden.
    encoding = states * (2 * 4 + 8 * size)
    cross_kv = d.n_text_layer * d.n_audio_ctx * 2 * d.n_text_state * size
    kv_cache = d.n_text_layer * 2 * 5 * d.n_text_ctx * d.n_text_state * size
    return weight_bytes(d, dtype, storage) + encoding + cross_kv + kv_cache
