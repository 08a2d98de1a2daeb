"""A model's weights on a device, by the names of its graphs' inputs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from max.driver import Buffer, Device
from max.dtype import DType

from ..checkpoint.bfloat16 import rounded
from ..checkpoint.dimensions import Dimensions
from ..checkpoint.load import Checkpoint, dense
from ..checkpoint.weight_dtypes import FILE_TYPES
from ..compile.session import LoadedGraph
from ..state.device_locks import locks_of
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


def gpu_weights(
    checkpoint: Checkpoint,
    dtype: DType,
    storage: DType,
    device: Device,
    graphs: Mapping[str, LoadedGraph],
) -> GPUWeights:
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
        graphs: Among them those of `add_casts`.
    """
    d = checkpoint.dimensions
    beside = locks_of(device).beside

    def buffers(weight: Weight, storage: DType) -> list[Buffer]:
        if not weight.matrix:
            parts = [_rows(dense(checkpoint.weights, weight.name), weight).copy()]
        elif storage == DType.int8:
            parts = list(quantized(checkpoint, weight))
        else:
            matrix = _as_saved(checkpoint, weight)
            with beside:
                return [_cast(matrix.to(device), storage, graphs)]
        with beside:
            return [Buffer.from_numpy(part).to(device) for part in parts]

    def placed(wanted: Iterable[Weight], storage: DType) -> dict[str, Buffer]:
        found: dict[str, Buffer] = {}
        for weight in wanted:
            names = [one.name for one in weight.inputs(storage)]
            found |= zip(names, buffers(weight, storage), strict=True)
        return found

    encodings = Weight("encoder/position_encodings/encodings", (d.n_audio_ctx, d.n_audio_state))
    decoder = placed(weight_specs.decoder_weights(d), storage)
    return GPUWeights(
        encodings=buffers(encodings, dtype)[0],
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
    values = np.array(_rows(dense(checkpoint.weights, weight.name), weight))
    largest = np.maximum(values.max(axis=1), -values.min(axis=1))
    largest[largest == 0] = 127
    largest = np.maximum(largest, 127 / np.finfo(np.float32).max)  # the factor is finite
    factors = np.float32(127) / largest
    values *= factors[:, None]
    return np.rint(values, out=values).astype(np.int8), 1 / factors


def _rows(values: np.ndarray, weight: Weight) -> np.ndarray:
    """Those of a checkpoint's weight that a weight of a graph is."""
    part = values[weight.first : weight.first + weight.shape[0]]
    if part.ndim == 3:
        part = part.transpose(0, 2, 1)
    return np.ascontiguousarray(part).reshape(weight.shape)


def _as_saved(checkpoint: Checkpoint, weight: Weight) -> Buffer:
    """A matrix in the float type of its file, on the host; what is quantised there, in float32."""
    saved = checkpoint.weights[weight.name]
    kind = FILE_TYPES.get(saved.dtype, DType.int8)
    if kind == DType.int8:
        saved, kind = dense(checkpoint.weights, weight.name), DType.float32
    return Buffer.from_numpy(np.array(_rows(saved, weight))).view(kind)


def _cast(matrix: Buffer, dtype: DType, graphs: Mapping[str, LoadedGraph]) -> Buffer:
    """A matrix on the device in another float type, rounded to the nearest."""
    if matrix.dtype == dtype:
        return matrix
    whole = matrix.view(matrix.dtype, (1, *matrix.shape))
    (made,) = graphs[f"cast_{matrix.dtype.name}"].execute(whole)
    return made.view(dtype, matrix.shape)


def on_device(values: np.ndarray, dtype: DType, device: Device) -> Buffer:
    """Float32 values as a float type, rounded to the nearest, on a device."""
    if dtype == DType.bfloat16:
        return Buffer.from_numpy(rounded(values)).view(DType.bfloat16).to(device)
    return Buffer.from_numpy(np.array(values, dtype.to_numpy())).to(device)
