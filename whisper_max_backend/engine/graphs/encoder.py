"""The audio encoder: log-mel frames to states (AudioEncoder in openai/whisper's model.py)."""

from __future__ import annotations

from max.dtype import DType
from max.graph import DeviceRef, Module, TensorType, TensorValue

from ..checkpoint import Dimensions
from .layers import Layers, new_graph, packed_attention_size


def add_encoder(module: Module, dimensions: Dimensions, device: DeviceRef) -> None:
    """Adds the graph ``encode``.

    ``features [batch, n_mels, frames] -> states [batch, (frames + 1) // 2, n_audio_state]``, for
    any batch and up to ``2 * n_audio_ctx`` frames; ``encodings [(frames + 1) // 2, n_audio_state]``
    are the position embeddings of as many frames.
    """
    width = dimensions.n_audio_state
    features = TensorType(DType.float32, ["batch", dimensions.n_mels, "frames"], device)
    encodings = TensorType(DType.float32, ["states", width], device)
    threads = TensorType(DType.int32, [1], device)
    with new_graph("encode", [features, encodings, threads], module) as graph:
        layers = Layers(graph, device)
        shape = ["batch", "frames", dimensions.n_mels]
        x = layers.kernel("time_major", [graph.inputs[0].tensor], shape)
        x = _convolution(layers, x, "encoder/conv1", ["batch", "frames", width], 1, None)
        x = _convolution(
            layers, x, "encoder/conv2", ["batch", "states", width], 2, graph.inputs[1].tensor
        )
        for index in range(dimensions.n_audio_layer):
            x = _attention(layers, x, f"encoder/layer_{index}/self_attention", dimensions)
            x = layers.feed_forward(x, f"encoder/layer_{index}/ffn")
        graph.output(layers.layer_norm(x, "encoder/layer_norm"))


def _convolution(
    layers: Layers,
    x: TensorValue,
    name: str,
    shape: list[str | int],
    stride: int,
    residual: TensorValue | None,
) -> TensorValue:
    """Width 3, padding 1, GELU; then the residual."""
    width = int(shape[-1])
    weight = layers.packed_weight(f"{name}/weight", width, 3 * int(x.shape[-1]))
    bias = layers.weight(f"{name}/bias", (width,))
    if residual is None:
        return layers.kernel("conv", [x, weight, bias], shape, {"stride": stride})
    return layers.kernel("conv_residual", [x, weight, bias, residual], shape, {"stride": stride})


def _attention(layers: Layers, x: TensorValue, name: str, dimensions: Dimensions) -> TensorValue:
    """``x`` plus bidirectional self-attention."""
    width = dimensions.n_audio_state
    heads = dimensions.n_audio_head
    size = packed_attention_size(dimensions.n_audio_ctx, width // heads)
    qkv = layers.linear(layers.layer_norm(x, f"{name}/layer_norm"), f"{name}/linear_0", 3 * width)
    packed = layers.kernel("pack_attention", [qkv], ["batch", heads, size])
    attended = layers.kernel("attention", [qkv, packed], x.shape)
    return layers.linear(attended, f"{name}/linear_1", width, residual=x)
