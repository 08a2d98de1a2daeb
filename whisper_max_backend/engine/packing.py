"""A model's weights in the layout of the kernels."""

from __future__ import annotations

import contextlib
import re

import numpy as np
from max.driver import CPU, Buffer
from max.dtype import DType

from .checkpoint import Checkpoint, dense
from .graphs.layers import packed_shape
from .shared import shared_models

_TYPES = {
    np.dtype(np.float32): DType.float32,
    np.dtype(np.float16): DType.float16,
    np.dtype(np.uint16): DType.bfloat16,  # how a checkpoint holds it
    np.dtype(np.int8): DType.int8,
}
# Read once a window, by products of many rows; what else the decoder has is read at every step.
_ONCE_A_WINDOW = re.compile(r"encoder/|decoder/layer_\d+/attention/linear_1/")


def storage_type(checkpoint: Checkpoint) -> DType:
    """What the decoder's weights are kept in: the file's own type where it is a smaller float.

    Widening it while computing gives the very values that a float32 copy would hold.
    """
    dtype = _TYPES.get(checkpoint.weights["decoder/embeddings/weight"].dtype)
    return dtype if dtype in (DType.float16, DType.bfloat16) else DType.float32


def packed_weights(checkpoint: Checkpoint, storage: DType, threads: int) -> dict[str, Buffer]:
    """Every weight by its name, on the CPU: dense ones in column panels, others as float32.

    Args:
        checkpoint: The model, in any precision.
        storage: Type of the dense weights that every decoder step reads; others are float32.
        threads: Threads that do it.
    """
    weights: dict[str, Buffer] = {}
    for name in checkpoint.weight_names():
        if name.endswith("/weight"):
            kept = DType.float32 if _ONCE_A_WINDOW.match(name) else storage
            weights[name] = _packed(checkpoint, name, kept, threads)
        else:
            weights[name] = Buffer.from_numpy(dense(checkpoint.weights, name))
    return weights


def _packed(checkpoint: Checkpoint, name: str, storage: DType, threads: int) -> Buffer:
    """A weight in panels; a convolution ``[out, in, kernel]`` as one over ``[kernel, in]``."""
    weight = checkpoint.weights[name]
    scale = checkpoint.weights.get(name + "_scale")
    if weight.dtype not in _TYPES:
        weight, scale = dense(checkpoint.weights, name), None
    if weight.ndim == 3:
        weight = weight.transpose(0, 2, 1).reshape(len(weight), -1)
    outputs, inputs = weight.shape
    dtype = _TYPES[weight.dtype]
    values = _lent(np.ascontiguousarray(weight)).view(dtype, (outputs, inputs))
    factors = np.ones(outputs, np.float32)
    if scale is not None:
        factors /= np.asarray(scale, np.float32).reshape(-1)
    packed = Buffer(storage, packed_shape(outputs, inputs), CPU())
    convert = shared_models()[f"pack_{dtype.name}_{storage.name}"]
    convert.execute(packed, values, factors, np.array([threads], np.int32))
    return packed


def _lent(array: np.ndarray) -> Buffer:
    """The array as a buffer: of the same memory, where that is not strictly read-only.

    DLPack does not lend read-only arrays; weights are views of a private mapping, marked so.
    """
    array = array.view()
    with contextlib.suppress(ValueError):  # raised for read-only memory, which is then copied
        array.flags.writeable = True
    return Buffer.from_numpy(array)
