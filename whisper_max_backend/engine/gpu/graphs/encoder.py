"""The audio encoder, and the cross-attention keys and values that the decoder keeps of a window."""

from __future__ import annotations

from collections.abc import Sequence

from max.dtype import DType
from max.graph import DeviceRef, Module, TensorValue, ops

from ...checkpoint.dimensions import Dimensions
from ...graphs.ops import new_graph
from ...graphs.signature import Signature
from . import weight_specs
from .layers import Layers, repeated


def add_encoder(module: Module, layers: Layers, d: Dimensions, signature: Signature) -> None:
    """Adds the graph ``encode``, which gives ``states [batch, states, width]``."""
    width = d.n_audio_state
    with new_graph("encode", signature.types(layers.device), module) as graph:
        values = signature.values(graph)

        def take(wanted: Sequence[weight_specs.Weight]) -> list[TensorValue]:
            return [values[one.name].tensor for one in weight_specs.inputs(wanted, layers.dtype)]

        convolutions = take(weight_specs.encoder_start(d))
        own = [take(weight_specs.encoder_layer(d, i)) for i in range(d.n_audio_layer)]
        end = take(weight_specs.encoder_end(d))
        (x,) = layers.kernel(
            "im2col",
            {"x": values["features"]},
            [layers.tensor("batch", "frames", 3 * d.n_mels)],
            source=DType.float32,
            result=layers.dtype,
            stride=1,
            channels_first=True,
        )
        x = layers.linear(x, *convolutions[:2], activate=True)
        (x,) = layers.kernel(
            "im2col",
            {"x": x},
            [layers.tensor("batch", "states", 3 * width)],
            source=layers.dtype,
            result=layers.dtype,
            stride=2,
            channels_first=False,
        )
        x = layers.linear(x, *convolutions[2:], activate=True)
        placed = {"x": x, "encodings": values["encodings"]}
        (x,) = layers.kernel("add_positions", placed, [layers.floats(*x.shape)])

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


def add_cross_kv(module: Module, layers: Layers, d: Dimensions, signature: Signature) -> None:
    """Adds the graph ``cross_kv``, which writes a window's keys and values once."""
    with new_graph("cross_kv", signature.types(layers.device), module) as graph:
        values = signature.values(graph)
        x = layers.cast(values["states"].tensor)
        for index in range(d.n_text_layer):
            own = weight_specs.inputs(weight_specs.cross_kv_layer(d, index), layers.dtype)
            number = ops.constant(index, DType.int32, DeviceRef.CPU())
            made = layers.linear(x, *(values[one.name].tensor for one in own))
            layers.kernel(
                "store_cross_kv",
                {
                    "cross_kv": values["cross_kv"],
                    "x": made,
                    "windows": values["windows"],
                    "layer": number,
                },
                [layers.integers(1)],
            )
        graph.output()
