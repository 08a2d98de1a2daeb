"""How token embeddings are kept in int8, where they are a matrix that makes the logits, too.

The final states of Whisper's decoder have a few columns that are many times as large as the others,
because the last normalisation has such gains. So its gains move into the embeddings. What all
embeddings have in common is most of each; int8 keeps what is left without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..checkpoint.load import dense
from ..checkpoint.weight_dtypes import EMBEDDINGS

CENTRE, INVERSES = f"{EMBEDDINGS}_centre", f"{EMBEDDINGS}_inverses"
"""Vectors that lie before the panels, in this order (mojo/whisper_kernels/cpu/embedding.mojo)."""

_LAST_NORM = "decoder/layer_norm"
_MOST = 4
"""How far factors lie from the median gain at most. A token that is looked up is divided by them,
and so is the error of rounding."""
_SAMPLED = 16
"""Of so many embeddings, one counts for what they have in common."""


@dataclass(frozen=True)
class EmbeddingColumns:
    """What becomes of the columns of the embeddings; float32 ``[n_text_state]`` each.

    Attributes:
        factors: They are multiplied by it. The states are divided by it.
        centre: They are less by it, after that.
        vectors: What lies before the panels, and what replaces the last normalisation, by name.
    """

    factors: np.ndarray
    centre: np.ndarray
    vectors: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, weights: Mapping[str, np.ndarray]) -> EmbeddingColumns:
        """Those of a checkpoint's weights."""
        gains = np.abs(dense(weights, f"{_LAST_NORM}/gamma"))
        middle = np.median(gains) or np.float32(1)
        factors = gains.clip(middle / _MOST, middle * _MOST)
        some = {EMBEDDINGS: weights[EMBEDDINGS][::_SAMPLED]}
        scale = weights.get(f"{EMBEDDINGS}_scale")
        if scale is not None:
            some[f"{EMBEDDINGS}_scale"] = scale[::_SAMPLED] if scale.ndim else scale
        centre = factors * dense(some, EMBEDDINGS).mean(axis=0)
        vectors = {CENTRE: centre, INVERSES: 1 / factors}
        for name in (f"{_LAST_NORM}/gamma", f"{_LAST_NORM}/beta"):
            vectors[name] = dense(weights, name) / factors
        return cls(factors, centre, vectors)

    def rows(self) -> np.ndarray:
        """Both as `Packer.put_matrix` takes them: ``[2, n_text_state]``."""
        return np.stack([self.factors, self.centre])
