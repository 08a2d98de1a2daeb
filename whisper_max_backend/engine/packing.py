"""A model's weights in the layout of the kernels."""

from __future__ import annotations

import numpy as np
from max.driver import CPU, Buffer
from max.dtype import DType

from .checkpoint import Checkpoint, dense
from .graphs.layers import packed_shape
from .shared import shared_models

_GRAPHS = {
    np.dtype(np.float32): "pack_float32",
    np.dtype(np.float16): "pack_float16",
    np.dtype(np.int8): "pack_int8",
}
_BFLOAT16 = np.dtype(np.uint16)  # how a checkpoint holds bfloat16


def packed_weights(checkpoint: Checkpoint, threads: int) -> dict[str, Buffer]:
    """Every weight by its name, as float32 on the CPU: dense ones in column panels.

    A convolution ``[out, in, kernel]`` becomes a dense weight over ``[kernel, in]``. Files of any
    precision are converted while they are packed.
    """
    weights: dict[str, Buffer] = {}
    for name in checkpoint.weight_names():
        if name.endswith("/weight"):
            weights[name] = _packed(checkpoint, name, threads)
        else:
            weights[name] = Buffer.from_numpy(dense(checkpoint.weights, name))
    return weights


def _packed(checkpoint: Checkpoint, name: str, threads: int) -> Buffer:
    weight = checkpoint.weights[name]
    scale = checkpoint.weights.get(name + "_scale")
    if weight.dtype not in _GRAPHS and weight.dtype != _BFLOAT16:
        weight, scale = dense(checkpoint.weights, name), None
    if weight.ndim == 3:
        weight = weight.transpose(0, 2, 1).reshape(len(weight), -1)
    outputs, inputs = weight.shape
    values = Buffer.from_numpy(np.ascontiguousarray(weight))
    if weight.dtype == _BFLOAT16:
        values, graph = values.view(DType.bfloat16, (outputs, inputs)), "pack_bfloat16"
    else:
        graph = _GRAPHS[weight.dtype]
    factors = np.ones(outputs, np.float32) if scale is None else 1 / np.float32(scale).reshape(-1)
    packed = Buffer(DType.float32, packed_shape(outputs, inputs), CPU())
    shared_models()[graph].execute(packed, values, factors, np.array([threads], np.int32))
    return packed
