"""A model's weights on a device, in the order in which its graphs take them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from max.driver import Buffer, Device
from max.dtype import DType

from .checkpoint import Checkpoint, Dimensions, dense
from .graphs.device import weights
from .graphs.device.weights import Weight


@dataclass(frozen=True)
class DeviceWeights:
    """The weights of the graphs.

    Attributes:
        encodings: Position embeddings of the encoder, float32 ``[n_audio_ctx, n_audio_state]``.
        encoder: Of ``encode``.
        memory: Of ``remember``.
        decoder: Of ``prefill``, ``step`` and ``align``; the first are the embeddings of tokens.
    """

    encodings: Buffer
    encoder: list[Buffer]
    memory: list[Buffer]
    decoder: list[Buffer]


def device_weights(checkpoint: Checkpoint, dtype: DType, device: Device) -> DeviceWeights:
    """Every weight of a model.

    Args:
        checkpoint: The model, in any precision.
        dtype: Of the matrices; vectors are float32.
        device: Where they are put.
    """
    d = checkpoint.dimensions

    def placed(wanted: Iterable[Weight]) -> list[Buffer]:
        return [
            on_device(_part(checkpoint, w), dtype if w.matrix else DType.float32, device)
            for w in wanted
        ]

    encodings = Weight("encoder/position_encodings/encodings", (d.n_audio_ctx, d.n_audio_state))
    return DeviceWeights(
        encodings=placed([encodings])[0],
        encoder=placed(weights.encoder_weights(d)),
        memory=placed(weights.memory_weights(d)),
        decoder=placed(weights.decoder_weights(d)),
    )


def weight_bytes(dimensions: Dimensions, dtype: DType) -> int:
    """What the weights of a model take."""
    every = (
        *weights.encoder_weights(dimensions),
        *weights.memory_weights(dimensions),
        *weights.decoder_weights(dimensions),
    )
    return sum(int(np.prod(w.shape)) * (int(dtype.size_in_bytes) if w.matrix else 4) for w in every)


def _part(checkpoint: Checkpoint, weight: Weight) -> np.ndarray:
    """The rows of a checkpoint's weight, in float32."""
    values = dense(checkpoint.weights, weight.name)
    values = values[weight.first : weight.first + weight.shape[0]]
    if values.ndim == 3:
        values = values.transpose(0, 2, 1)
    return np.ascontiguousarray(values, np.float32).reshape(weight.shape)


def on_device(values: np.ndarray, dtype: DType, device: Device) -> Buffer:
    """Float32 values as a float type, rounded to the nearest, on a device."""
    if dtype == DType.bfloat16:
        return Buffer.from_numpy(_rounded(values)).view(DType.bfloat16).to(device)
    return Buffer.from_numpy(np.array(values, dtype.to_numpy())).to(device)


def _rounded(values: np.ndarray) -> np.ndarray:
    """The bits of bfloat16, rounded to the nearest, ties to even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype(np.uint16)
