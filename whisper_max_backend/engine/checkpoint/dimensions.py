"""The sizes of a Whisper, and the shapes that its weights have with them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Dimensions:
    """Sizes of a model, under openai-whisper's names (ModelDimensions)."""

    n_mels: int
    n_audio_ctx: int
    n_audio_state: int
    n_audio_head: int
    n_audio_layer: int
    n_vocab: int
    n_text_ctx: int
    n_text_state: int
    n_text_head: int
    n_text_layer: int


def expected_shapes(dimensions: Dimensions) -> dict[str, tuple[int, ...]]:
    """The shape of every weight of a Whisper with these dimensions, in the order of the data."""
    audio, text = dimensions.n_audio_state, dimensions.n_text_state
    shapes: dict[str, tuple[int, ...]] = {}

    def linear(name: str, *shape: int) -> None:
        shapes[f"{name}/weight"] = shape
        shapes[f"{name}/bias"] = shape[:1]

    def norm(name: str, size: int) -> None:
        shapes[f"{name}/gamma"] = shapes[f"{name}/beta"] = (size,)

    def layer(name: str, size: int, cross: bool) -> None:
        norm(f"{name}/self_attention/layer_norm", size)
        linear(f"{name}/self_attention/linear_0", 3 * size, size)
        linear(f"{name}/self_attention/linear_1", size, size)
        if cross:
            norm(f"{name}/attention/layer_norm", size)
            linear(f"{name}/attention/linear_0", size, size)
            linear(f"{name}/attention/linear_1", 2 * size, audio)
            linear(f"{name}/attention/linear_2", size, size)
        norm(f"{name}/ffn/layer_norm", size)
        linear(f"{name}/ffn/linear_0", 4 * size, size)
        linear(f"{name}/ffn/linear_1", size, 4 * size)

    linear("encoder/conv1", audio, dimensions.n_mels, 3)
    linear("encoder/conv2", audio, audio, 3)
    shapes["encoder/position_encodings/encodings"] = (dimensions.n_audio_ctx, audio)
    for index in range(dimensions.n_audio_layer):
        layer(f"encoder/layer_{index}", audio, cross=False)
    norm("encoder/layer_norm", audio)
    shapes["decoder/embeddings/weight"] = (dimensions.n_vocab, text)
    shapes["decoder/position_encodings/encodings"] = (dimensions.n_text_ctx, text)
    for index in range(dimensions.n_text_layer):
        layer(f"decoder/layer_{index}", text, cross=True)
    norm("decoder/layer_norm", text)
    return shapes
