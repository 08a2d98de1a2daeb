"""A model's weights on a device, by the names of its graphs' inputs."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from max.driver import Buffer, Device
from max.dtype import DType

from ..checkpoint.bfloat16 import rounded
from ..checkpoint.dimensions import Dimensions
from ..checkpoint.load import Checkpoint, dense
from .graphs import weight_specs
from .graphs.weight_specs import Weight


@dataclass(frozen=True)
class GPUWeights:
    """The weights of the graphs, by the names of `Weight.inputs`.

    Attributes:
        encodings: Position embeddings of the encoder, float32 ``[n_audio_ctx, n_audio_state]``.
        encoder: Of ``encode``.
        cross_kv: Of ``cross_kv``.
        decoder: Of ``prefill``, ``step`` and ``align``.
        embeddings: Those among them that ``probabilities`` has.
    """

    encodings: Buffer
    encoder: dict[str, Buffer]
    cross_kv: dict[str, Buffer]
    decoder: dict[str, Buffer]
    embeddings: dict[str, Buffer]


def gpu_weights(checkpoint: Checkpoint, dtype: DType, storage: DType, device: Device) -> GPUWeights:
    """Every weight of a model; vectors are float32.

    Where `storage` is int8, the device has no second copy of the decoder's matrices: large-v3's 800
    million numbers take 0.80 GB and not the 1.60 GB of bfloat16, so all its weights 2.29 GB and not
    3.09; those of large-v3-turbo, 1.46 GB and not 1.62.

    Args:
        checkpoint: The model, in any precision.
        dtype: Of the matrices that are read once a window: the encoder's, and the projections to
            cross-attention keys and values. Those of an int8 model are dequantised.
        storage: Of the decoder's other matrices: `dtype`, or int8. What is int8 in the model stays
            as it is; floats are quantised as the reference does it.
        device: Where they are put.
    """
    d = checkpoint.dimensions

    def placed(wanted: Iterable[Weight], storage: DType) -> dict[str, Buffer]:
        buffers: dict[str, Buffer] = {}
        for weight in wanted:
            names = [one.name for one in weight.inputs(storage)]
            buffers |= zip(names, _buffers(checkpoint, weight, storage, device), strict=True)
        return buffers

    encodings = Weight("encoder/position_encodings/encodings", (d.n_audio_ctx, d.n_audio_state))
    decoder = placed(weight_specs.decoder_weights(d), storage)
    return GPUWeights(
        encodings=_buffers(checkpoint, encodings, dtype, device)[0],
        encoder=placed(weight_specs.encoder_weights(d), dtype),
        cross_kv=placed(weight_specs.cross_kv_weights(d), dtype),
        decoder=decoder,
        embeddings={
            one.name: decoder[one.name] for one in weight_specs.embeddings(d).inputs(storage)
        },
    )


def weight_bytes(d: Dimensions, dtype: DType, storage: DType) -> int:
    """What the weights of a model take; types as in `gpu_weights`."""
    once = [*weight_specs.encoder_weights(d), *weight_specs.cross_kv_weights(d)]
    inputs = [
        *weight_specs.inputs(once, dtype),
        *weight_specs.inputs(weight_specs.decoder_weights(d), storage),
    ]
    return sum(math.prod(map(int, one.shape)) * one.dtype.size_in_bytes for one in inputs)


def _buffers(
    checkpoint: Checkpoint, weight: Weight, storage: DType, device: Device
) -> list[Buffer]:
    """The weight as inputs of a graph: see `Weight.inputs`."""
    if not weight.matrix:
        return [on_device(_part(checkpoint, weight), DType.float32, device)]
    if storage != DType.int8:
        return [on_device(_part(checkpoint, weight), storage, device)]
    values, scales = quantized(checkpoint, weight)
    return [Buffer.from_numpy(values).to(device), Buffer.from_numpy(scales).to(device)]


def quantized(checkpoint: Checkpoint, weight: Weight) -> tuple[np.ndarray, np.ndarray]:
    """The rows of a matrix ``[outputs, inputs]``: int8, and float32 scales ``[outputs]``.

    The model's own numbers if they are int8; else the largest of each row becomes 127, as the
    reference does it. A file has the scales' reciprocals.
    """
    rows = slice(weight.first, weight.first + weight.shape[0])
    saved = checkpoint.weights[weight.name]
    if saved.dtype == np.int8:
        factors = np.asarray(checkpoint.weights[f"{weight.name}_scale"], np.float32).reshape(-1)
        return np.array(saved[rows]), 1 / factors[rows]
    values = np.array(_part(checkpoint, weight))
    largest = np.maximum(values.max(axis=1), -values.min(axis=1))
    largest[largest == 0] = 127
    largest = np.maximum(largest, 127 / np.finfo(np.float32).max)  # the factor is finite
    factors = np.float32(127) / largest
    values *= factors[:, None]
    return np.rint(values, out=values).astype(np.int8), 1 / factors


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
        return Buffer.from_numpy(rounded(values)).view(DType.bfloat16).to(device)
    return Buffer.from_numpy(np.array(values, dtype.to_numpy())).to(device)
