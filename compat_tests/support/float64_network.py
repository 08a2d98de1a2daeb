"""Whisper in float64 NumPy, for random weights of any dimensions: what the kernels compute."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

import numpy as np

from compat_tests.support.randomness import rng
from whisper_max_backend.engine.checkpoint.dimensions import Dimensions, expected_shapes
from whisper_max_backend.engine.checkpoint.load import Checkpoint, dense
from whisper_max_backend.engine.checkpoint.vocabulary import Vocabulary

_erf = np.vectorize(math.erf, otypes=[np.float64])


def random_checkpoint(dimensions: Dimensions, dtype: str = "float32") -> Checkpoint:
    """A model whose matrices are of the type `dtype`; layers neither swell nor vanish."""
    weights = {}
    for name, shape in expected_shapes(dimensions).items():
        values = rng().normal(0, 1 if "embeddings" in name else 0.1, shape)
        if name.endswith("/weight") and "embeddings" not in name:
            values *= 12 / math.sqrt(np.prod(shape[1:]))
        if name.endswith("gamma"):
            values += 1
        kept = dtype if name.endswith("/weight") else "float32"
        weights[name] = np.ascontiguousarray(values, kept)
    # The kernels know nothing of tokens.
    return Checkpoint(dimensions, weights, cast(Vocabulary, None), {}, dtype)


def log_softmax(x: np.ndarray) -> np.ndarray:
    """Over the last axis."""
    shifted = x - x.max(axis=-1, keepdims=True)
    result: np.ndarray = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


class Network:
    """The encoder and the decoder over whole sequences, without caches."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.dimensions = checkpoint.dimensions
        self.weights: Mapping[str, np.ndarray] = {
            name: dense(checkpoint.weights, name).astype(np.float64)
            for name in checkpoint.weight_names()
        }
        self.cross_weights: list[np.ndarray] = []  # of the last `decode`, see there

    def encode(self, features: np.ndarray) -> np.ndarray:
        """``[batch, n_mels, frames]`` to ``[batch, (frames + 1) // 2, state]``."""
        x = self._convolution("encoder/conv1", features.swapaxes(1, 2), 1)
        x = self._convolution("encoder/conv2", x, 2)
        x = x + self.weights["encoder/position_encodings/encodings"][: x.shape[1]]
        for index in range(self.dimensions.n_audio_layer):
            name = f"encoder/layer_{index}"
            x = x + self._self_attention(name, x, self.dimensions.n_audio_head, causal=False)
            x = x + self._feed_forward(name, x)
        return self._norm("encoder/layer_norm", x)

    def decode(self, tokens: np.ndarray, states: np.ndarray) -> np.ndarray:
        """Logits ``[rows, length, n_vocab]`` of ``tokens [rows, length]``.

        The weights of the cross-attention are kept, ``[rows, heads, length, frames]`` of a layer.
        """
        self.cross_weights = []
        heads = self.dimensions.n_text_head
        embeddings = self.weights["decoder/embeddings/weight"]
        encodings = self.weights["decoder/position_encodings/encodings"]
        x = embeddings[tokens] + encodings[: tokens.shape[1]]
        for index in range(self.dimensions.n_text_layer):
            name = f"decoder/layer_{index}"
            x = x + self._self_attention(name, x, heads, causal=True)
            queries = self._norm(f"{name}/attention/layer_norm", x)
            queries = self._linear(f"{name}/attention/linear_0", queries)
            keys, values = np.split(self._linear(f"{name}/attention/linear_1", states), 2, axis=-1)
            self.cross_weights.append(attention_weights(queries, keys, heads, causal=False))
            attended = attend(queries, keys, values, heads, causal=False)
            x = x + self._linear(f"{name}/attention/linear_2", attended)
            x = x + self._feed_forward(name, x)
        return self._norm("decoder/layer_norm", x) @ embeddings.T

    def _self_attention(self, name: str, x: np.ndarray, heads: int, causal: bool) -> np.ndarray:
        x = self._norm(f"{name}/self_attention/layer_norm", x)
        queries, keys, values = np.split(
            self._linear(f"{name}/self_attention/linear_0", x), 3, axis=-1
        )
        attended = attend(queries, keys, values, heads, causal)
        return self._linear(f"{name}/self_attention/linear_1", attended)

    def _feed_forward(self, name: str, x: np.ndarray) -> np.ndarray:
        hidden = self._linear(f"{name}/ffn/linear_0", self._norm(f"{name}/ffn/layer_norm", x))
        return self._linear(f"{name}/ffn/linear_1", gelu(hidden))

    def _linear(self, name: str, x: np.ndarray) -> np.ndarray:
        return x @ self.weights[f"{name}/weight"].T + self.weights[f"{name}/bias"]

    def _norm(self, name: str, x: np.ndarray) -> np.ndarray:
        centred = x - x.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt(x.var(axis=-1, keepdims=True) + 1e-5)
        return scaled * self.weights[f"{name}/gamma"] + self.weights[f"{name}/beta"]

    def _convolution(self, name: str, x: np.ndarray, stride: int) -> np.ndarray:
        """Width 3 over time, padding 1, through GELU; x [batch, time, channels]."""
        padded = np.pad(x, ((0, 0), (1, 1), (0, 0)))
        windows = np.stack([padded[:, k : k + x.shape[1] : stride] for k in range(3)], axis=-1)
        product = np.einsum("btik,oik->bto", windows, self.weights[f"{name}/weight"])
        return gelu(product + self.weights[f"{name}/bias"])


def gelu(x: np.ndarray) -> np.ndarray:
    """x/2 (1 + erf(x / sqrt 2))."""
    return 0.5 * x * (1 + _erf(x / math.sqrt(2)))


def attend(
    queries: np.ndarray, keys: np.ndarray, values: np.ndarray, heads: int, causal: bool
) -> np.ndarray:
    """Scaled dot-product attention over ``[batch, rows, state]``."""
    weights = attention_weights(queries, keys, heads, causal)
    return (weights @ by_heads(values, heads)).swapaxes(1, 2).reshape(queries.shape)


def attention_weights(
    queries: np.ndarray, keys: np.ndarray, heads: int, causal: bool
) -> np.ndarray:
    """What `attend` weighs the values by, ``[batch, heads, rows, columns]``."""
    q, k = by_heads(queries, heads), by_heads(keys, heads)
    scores = q @ k.swapaxes(-1, -2) / math.sqrt(q.shape[-1])
    if causal:
        scores = np.where(np.tri(*scores.shape[-2:]) > 0, scores, -np.inf)
    weights: np.ndarray = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return weights


def by_heads(x: np.ndarray, heads: int) -> np.ndarray:
    """``[batch, rows, state]`` as ``[batch, heads, rows, head size]``."""
    return x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2)
