"""Which data type each group of weights is kept in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from max.dtype import DType

from ..compile.cpu_target import has_bfloat16, has_tiles
from .load import Checkpoint

EMBEDDINGS = "decoder/embeddings/weight"
FILE_TYPES = {
    np.dtype(np.float32): DType.float32,
    np.dtype(np.float16): DType.float16,
    np.dtype(np.uint16): DType.bfloat16,  # how a checkpoint holds it
    np.dtype(np.int8): DType.int8,
}
"""Of a checkpoint's array, by its own type."""


@dataclass(frozen=True)
class Storage:
    """What the numbers of a model are kept in on a CPU.

    Attributes:
        encoder: The matrices that are read once a window: the encoder's, and the projections to
            cross-attention keys and values.
        decoder: The matrices that every step reads.
        cross_kv: The cross-attention keys and values.
    """

    encoder: DType
    decoder: DType
    cross_kv: DType

    @property
    def kv_cache(self) -> DType:
        """The self-attention keys and values, which take much memory in a batch of beams."""
        return DType.float16 if self.decoder == DType.int8 else DType.float32

    @property
    def name(self) -> str:
        """Names the three, as part of a key."""
        return f"{self.encoder.name}-{self.decoder.name}-{self.cross_kv.name}"


def storage_for(checkpoint: Checkpoint, compute_type: str) -> Storage:
    """What the numbers of a model are kept in on a CPU, for a type that it computes in.

    Where that is float32, the decoder's matrices stay in the file's own type if it is a smaller
    float: widened while computing, they are the very values that a float32 copy would hold. A CPU
    that multiplies bfloat16 would compute in it, so there they do not stay in that.

    Most of what bfloat16 loses, it loses in the decoder's matrices, which it rounds eight times as
    coarsely as float16. Reading them sets the pace of a step, so they stay in float16; but not
    with AMX, whose products are far ahead of float32's.
    """
    saved = FILE_TYPES.get(checkpoint.weights[EMBEDDINGS].dtype)
    if compute_type.startswith("int8"):
        return Storage(DType.int8, DType.int8, DType.int8)
    if compute_type == "bfloat16":
        widened = saved == DType.float16 and not has_tiles()
        return Storage(DType.bfloat16, DType.float16 if widened else DType.bfloat16, DType.bfloat16)
    kept = (DType.float16,) if has_bfloat16() else (DType.float16, DType.bfloat16)
    return Storage(DType.float32, saved if saved in kept else DType.float32, DType.float32)


def gpu_types(compute_type: str) -> tuple[DType, DType]:
    """On a GPU: the float type that is computed in, and the type of the matrices of a step.

    int8 is of weights only there: what they are multiplied with stays a float. The encoder and the
    projections to cross-attention keys and values are read once a window, and stay floats too.
    """
    floats = DType[compute_type.removeprefix("int8_")]
    return floats, DType.int8 if compute_type.startswith("int8_") else floats
