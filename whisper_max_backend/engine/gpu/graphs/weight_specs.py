"""The weights that the graphs take as inputs, in this order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from max.dtype import DType

from ...checkpoint.dimensions import Dimensions
from ...graphs.signature import Input, floats


@dataclass(frozen=True)
class Weight:
    """A weight of a graph: some rows of a weight of the checkpoint.

    Attributes:
        name: In the checkpoint.
        shape: Of the part; a convolution ``[out, in, kernel]`` is one over ``[kernel * in]``.
        first: The first row of the part.
        matrix: Whether it is kept in a type that is chosen for the graph; else in float32.
    """

    name: str
    shape: tuple[int, ...]
    first: int = 0
    matrix: bool = False

    def inputs(self, storage: DType) -> list[Input]:
        """As inputs of a graph that has matrices in `storage`; those of int8 have scales.

        The scales are float32 ``[rows]``: what a row's whole numbers are multiplied with.
        """
        name = f"{self.name}[{self.first}:]" if self.first else self.name
        if not self.matrix:
            return [floats(name, *self.shape)]
        matrix = Input(name, storage, self.shape)
        scales = floats(f"{name}_scale", self.shape[0])
        return [matrix, scales] if storage == DType.int8 else [matrix]


def inputs(weights: Iterable[Weight], storage: DType) -> list[Input]:
    """The inputs that these weights are."""
    return [one for weight in weights for one in weight.inputs(storage)]


def _linear(name: str, outputs: int, inputs: int, first: int = 0) -> Iterator[Weight]:
    yield Weight(f"{name}/weight", (outputs, inputs), first, matrix=True)
    yield Weight(f"{name}/bias", (outputs,), first)


def _norm(name: str, width: int) -> Iterator[Weight]:
    yield Weight(f"{name}/gamma", (width,))
    yield Weight(f"{name}/beta", (width,))


def _feed_forward(name: str, width: int) -> Iterator[Weight]:
    yield from _norm(f"{name}/layer_norm", width)
    yield from _linear(f"{name}/linear_0", 4 * width, width)
    yield from _linear(f"{name}/linear_1", width, 4 * width)


def encoder_start(d: Dimensions) -> list[Weight]:
    """Both convolutions."""
    width = d.n_audio_state
    return [
        *_linear("encoder/conv1", width, 3 * d.n_mels),
        *_linear("encoder/conv2", width, 3 * width),
    ]


def encoder_layer(d: Dimensions, index: int) -> list[Weight]:
    """A layer of the encoder; queries, keys and values are projected apart."""
    width, name = d.n_audio_state, f"encoder/layer_{index}"
    parts = (_linear(f"{name}/self_attention/linear_0", width, width, k * width) for k in range(3))
    return [
        *_norm(f"{name}/self_attention/layer_norm", width),
        *(weight for part in parts for weight in part),
        *_linear(f"{name}/self_attention/linear_1", width, width),
        *_feed_forward(f"{name}/ffn", width),
    ]


def encoder_end(d: Dimensions) -> list[Weight]:
    """The last normalisation."""
    return list(_norm("encoder/layer_norm", d.n_audio_state))


def encoder_weights(d: Dimensions) -> list[Weight]:
    """All weights of ``encode``; position embeddings are an input of their own."""
    layers = (encoder_layer(d, index) for index in range(d.n_audio_layer))
    return [*encoder_start(d), *(w for layer in layers for w in layer), *encoder_end(d)]


def cross_kv_layer(d: Dimensions, index: int) -> list[Weight]:
    """The cross-attention keys and values of a layer of the decoder."""
    name = f"decoder/layer_{index}/attention/linear_1"
    return list(_linear(name, 2 * d.n_text_state, d.n_audio_state))


def cross_kv_weights(d: Dimensions) -> list[Weight]:
    """All weights of ``cross_kv``."""
    return [w for index in range(d.n_text_layer) for w in cross_kv_layer(d, index)]


def embeddings(d: Dimensions) -> Weight:
    """Embeddings of tokens, which the logits are made with too."""
    return Weight("decoder/embeddings/weight", (d.n_vocab, d.n_text_state), matrix=True)


def decoder_start(d: Dimensions) -> list[Weight]:
    """Embeddings of tokens and of positions."""
    encodings = Weight("decoder/position_encodings/encodings", (d.n_text_ctx, d.n_text_state))
    return [embeddings(d), encodings]


def decoder_layer(d: Dimensions, index: int) -> list[Weight]:
    """A layer of the decoder."""
    width, name = d.n_text_state, f"decoder/layer_{index}"
    return [
        *_norm(f"{name}/self_attention/layer_norm", width),
        *_linear(f"{name}/self_attention/linear_0", 3 * width, width),
        *_linear(f"{name}/self_attention/linear_1", width, width),
        *_norm(f"{name}/attention/layer_norm", width),
        *_linear(f"{name}/attention/linear_0", width, width),
        *_linear(f"{name}/attention/linear_2", width, width),
        *_feed_forward(f"{name}/ffn", width),
    ]


def decoder_end(d: Dimensions) -> list[Weight]:
    """The last normalisation."""
    return list(_norm("decoder/layer_norm", d.n_text_state))


def decoder_weights(d: Dimensions) -> list[Weight]:
    """All weights of ``prefill``, ``step`` and ``align``."""
    layers = (decoder_layer(d, index) for index in range(d.n_text_layer))
    return [*decoder_start(d), *(w for layer in layers for w in layer), *decoder_end(d)]
