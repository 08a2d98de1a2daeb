"""The audio encoder, and the cross-attention keys and values that the decoder keeps of a window."""

from __future__ import annotations

from collections.abc import Sequence

from max.dtype import DType
from max.graph import BufferType, DeviceRef, Module, TensorType, TensorValue, ops

from ...checkpoint.dimensions import Dimensions
from ...graphs.ops import new_graph
from . import weights
from .layers import Layers, repeated


def add_encoder(module: Module, layers: Layers, d: Dimensions) -> None:
    """Adds the graph ``encode``.

    ``features [batch, n_mels, frames]``, ``encodings [states, width]`` (position embeddings of
    ``states == (frames + 1) // 2``) and the weights give ``states [batch, states, width]``.
    """
    width = d.n_audio_state
    inputs = [
        layers.floats("batch", d.n_mels, "frames"),
        layers.floats("states", width),
        *weights.input_types(weights.encoder_weights(d), layers.dtype, layers.device),
    ]
    with new_graph("encode", inputs, module) as graph:
        features, encodings, *rest = (value.tensor for value in graph.inputs)
        values = iter(rest)

        def take(count: int) -> list[TensorValue]:
            return [next(values) for _ in range(count)]

        first, second = take(2), take(2)
        own = [take(len(weights.encoder_layer(d, i))) for i in range(d.n_audio_layer)]
        end = take(2)
        (x,) = layers.kernel(
            "im2col",
            [features],
            [layers.tensor("batch", "frames", 3 * d.n_mels)],
            source=DType.float32,
            result=layers.dtype,
            stride=1,
            channels_first=True,
        )
        x = layers.linear(x, *first, activate=True)
        (x,) = layers.kernel(
            "im2col",
            [x],
            [layers.tensor("batch", "states", 3 * width)],
            source=layers.dtype,
            result=layers.dtype,
            stride=2,
            channels_first=False,
        )
        x = layers.linear(x, *second, activate=True)
        (x,) = layers.kernel("add_positions", [x, encodings], [layers.floats(*x.shape)])

        def layer(inputs: Sequence[TensorValue], own: Sequence[TensorValue]) -> list[TensorValue]:
            (x,) = inputs
            normed = layers.norm(x, *own[:2])
            q, k, v = (layers.linear(normed, *own[i : i + 2]) for i in (2, 4, 6))
            attended = layers.attention(q, k, v, heads=d.n_audio_head)
            x = layers.added(x, attended, *own[8:10])
            hidden = layers.linear(layers.norm(x, *own[10:12]), *own[12:14], activate=True)
            return [layers.added(x, hidden, *own[14:16])]

        ((x,),) = repeated(graph, [x], own, layer)[-1:]
        graph.output(layers.last_norm(x, *end))


def add_cross_kv(module: Module, layers: Layers, d: Dimensions) -> None:
    """Adds the graph ``cross_kv``: the cross-attention keys and values of a window, once.

    ``cross_kv [layers, items, frames, 2 * width]``, written in place;
    ``states [items, frames, audio width]`` and the weights.
    """
    shape = [d.n_text_layer, "items", "frames", 2 * d.n_text_state]
    inputs: list[TensorType | BufferType] = [
        BufferType(layers.dtype, shape, layers.device),
        layers.floats("items", "frames", d.n_audio_state),
        *weights.input_types(weights.cross_kv_weights(d), layers.dtype, layers.device),
    ]
    with new_graph("cross_kv", inputs, module) as graph:
        cross_kv, states, *values = graph.inputs
        x = layers.cast(states.tensor)
        for index in range(d.n_text_layer):
            weight, bias = (value.tensor for value in values[2 * index : 2 * index + 2])
            number = ops.constant(index, DType.int32, DeviceRef.CPU())
            made = layers.linear(x, weight, bias)
            layers.kernel("store_cross_kv", [cross_kv.buffer, made, number], [layers.integers(1)])
        graph.output()
