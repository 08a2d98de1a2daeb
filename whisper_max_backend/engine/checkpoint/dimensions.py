"""The sizes of a Whisper, and the shapes that its weights have with them."""

from __future__ import annotations

from collections.abc import Mapping
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


def _sizes(width: int, heads: int, layers: int, text_layers: int = 0) -> dict[str, int]:
    """Of an encoder and a decoder of the same width; `text_layers` where these differ in number."""
    return {
        "n_audio_ctx": 1500,
        "n_audio_state": width,
        "n_audio_head": heads,
        "n_audio_layer": layers,
        "n_text_ctx": 448,
        "n_text_state": width,
        "n_text_head": heads,
        "n_text_layer": text_layers or layers,
    }


_ENGLISH = {"n_mels": 80, "n_vocab": 51864}
_MULTILINGUAL = {"n_mels": 80, "n_vocab": 51865}
_V3 = {"n_mels": 128, "n_vocab": 51866}
PUBLISHED: Mapping[str, Dimensions] = {
    "tiny.en": Dimensions(**_sizes(384, 6, 4), **_ENGLISH),
    "tiny": Dimensions(**_sizes(384, 6, 4), **_MULTILINGUAL),
    "base.en": Dimensions(**_sizes(512, 8, 6), **_ENGLISH),
    "base": Dimensions(**_sizes(512, 8, 6), **_MULTILINGUAL),
    "small.en": Dimensions(**_sizes(768, 12, 12), **_ENGLISH),
    "small": Dimensions(**_sizes(768, 12, 12), **_MULTILINGUAL),
    "medium.en": Dimensions(**_sizes(1024, 16, 24), **_ENGLISH),
    "medium": Dimensions(**_sizes(1024, 16, 24), **_MULTILINGUAL),
    "large-v2": Dimensions(**_sizes(1280, 20, 32), **_MULTILINGUAL),
    "large-v3": Dimensions(**_sizes(1280, 20, 32), **_V3),
    "large-v3-turbo": Dimensions(**_sizes(1280, 20, 32, 4), **_V3),
    "distil-small.en": Dimensions(**_sizes(768, 12, 12, 4), **_ENGLISH),
    "distil-medium.en": Dimensions(**_sizes(1024, 16, 24, 2), **_ENGLISH),
    "distil-large-v2": Dimensions(**_sizes(1280, 20, 32, 2), **_MULTILINGUAL),
    "distil-large-v3": Dimensions(**_sizes(1280, 20, 32, 2), **_V3),
}
"""Of models that faster-whisper knows by name. `large-v1` has those of `large-v2`."""


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
