"""Names of other formats into CTranslate2's, with queries, keys and values fused.

Hugging Face and openai-whisper save the same network under two sets of names.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from .files import Lazy


@dataclass(frozen=True)
class Names:
    """The names of one format; `{}` stands for the layer."""

    conv: str  # of the encoder, {} is 1 or 2
    encoder_positions: str
    encoder_norm: str
    encoder_layer: str
    embeddings: str
    decoder_positions: str
    decoder_norm: str
    decoder_layer: str
    # Within a layer:
    self_attention: str
    self_attention_norm: str
    cross_attention: str
    cross_attention_norm: str
    query: str
    key: str
    value: str
    out: str
    expand: str
    contract: str
    feed_forward_norm: str


HUGGING_FACE = Names(
    conv="encoder.conv{}",
    encoder_positions="encoder.embed_positions.weight",
    encoder_norm="encoder.layer_norm",
    encoder_layer="encoder.layers.{}.",
    embeddings="decoder.embed_tokens.weight",
    decoder_positions="decoder.embed_positions.weight",
    decoder_norm="decoder.layer_norm",
    decoder_layer="decoder.layers.{}.",
    self_attention="self_attn.",
    self_attention_norm="self_attn_layer_norm",
    cross_attention="encoder_attn.",
    cross_attention_norm="encoder_attn_layer_norm",
    query="q_proj",
    key="k_proj",
    value="v_proj",
    out="out_proj",
    expand="fc1",
    contract="fc2",
    feed_forward_norm="final_layer_norm",
)
OPENAI = Names(
    conv="encoder.conv{}",
    encoder_positions="encoder.positional_embedding",
    encoder_norm="encoder.ln_post",
    encoder_layer="encoder.blocks.{}.",
    embeddings="decoder.token_embedding.weight",
    decoder_positions="decoder.positional_embedding",
    decoder_norm="decoder.ln",
    decoder_layer="decoder.blocks.{}.",
    self_attention="attn.",
    self_attention_norm="attn_ln",
    cross_attention="cross_attn.",
    cross_attention_norm="cross_attn_ln",
    query="query",
    key="key",
    value="value",
    out="out",
    expand="mlp.0",
    contract="mlp.2",
    feed_forward_norm="mlp_ln",
)


def fuse(
    tensors: Mapping[str, np.ndarray], names: Names, encoder_layers: int, decoder_layers: int
) -> dict[str, np.ndarray | Lazy]:
    """Entries under CTranslate2's names. Tensors that are absent are left out.

    The caller checks completeness, so that every format reports a missing weight alike.
    """
    entries: dict[str, np.ndarray | Lazy] = {}
    for target, sources in _table(names, encoder_layers, decoder_layers):
        parts = [tensors.get(source) for source in sources]
        entry = _concatenated(parts, _row_counts(tensors, sources))
        if entry is not None:
            entries[target] = entry
    return entries


def separate(
    weights: Mapping[str, np.ndarray], names: Names, encoder_layers: int, decoder_layers: int
) -> dict[str, np.ndarray]:
    """The reverse of `fuse`, without the biases of keys, which are zeros. KeyError if one lacks."""
    return {
        source: part
        for target, sources in _table(names, encoder_layers, decoder_layers)
        for source, part in zip(sources, np.split(weights[target], len(sources)), strict=True)
        if not source.endswith(f".{names.key}.bias")
    }


def _table(
    names: Names, encoder_layers: int, decoder_layers: int
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every entry's name, and the names of the tensors that are one below another in it."""

    def linear(target: str, *sources: str) -> Iterator[tuple[str, tuple[str, ...]]]:
        for kind in ("weight", "bias"):
            yield f"{target}/{kind}", tuple(f"{source}.{kind}" for source in sources)

    def norm(target: str, source: str) -> Iterator[tuple[str, tuple[str, ...]]]:
        yield f"{target}/gamma", (f"{source}.weight",)
        yield f"{target}/beta", (f"{source}.bias",)

    for conv in (1, 2):
        yield from linear(f"encoder/conv{conv}", names.conv.format(conv))
    yield "encoder/position_encodings/encodings", (names.encoder_positions,)
    yield "decoder/position_encodings/encodings", (names.decoder_positions,)
    yield "decoder/embeddings/weight", (names.embeddings,)
    yield from norm("encoder/layer_norm", names.encoder_norm)
    yield from norm("decoder/layer_norm", names.decoder_norm)

    for target, source, cross in _layers(names, encoder_layers, decoder_layers):
        attention = source + names.self_attention
        projections = [attention + part for part in (names.query, names.key, names.value)]
        yield from norm(f"{target}/self_attention/layer_norm", source + names.self_attention_norm)
        yield from linear(f"{target}/self_attention/linear_0", *projections)
        yield from linear(f"{target}/self_attention/linear_1", attention + names.out)
        if cross:
            attention = source + names.cross_attention
            keys_values = (attention + names.key, attention + names.value)
            yield from norm(f"{target}/attention/layer_norm", source + names.cross_attention_norm)
            yield from linear(f"{target}/attention/linear_0", attention + names.query)
            yield from linear(f"{target}/attention/linear_1", *keys_values)
            yield from linear(f"{target}/attention/linear_2", attention + names.out)
        yield from norm(f"{target}/ffn/layer_norm", source + names.feed_forward_norm)
        yield from linear(f"{target}/ffn/linear_0", source + names.expand)
        yield from linear(f"{target}/ffn/linear_1", source + names.contract)


def _layers(
    names: Names, encoder_layers: int, decoder_layers: int
) -> Iterator[tuple[str, str, bool]]:
    for layer in range(encoder_layers):
        yield f"encoder/layer_{layer}", names.encoder_layer.format(layer), False
    for layer in range(decoder_layers):
        yield f"decoder/layer_{layer}", names.decoder_layer.format(layer), True


def _row_counts(tensors: Mapping[str, np.ndarray], sources: tuple[str, ...]) -> list[int]:
    """Outputs of each projection, of whose weight or bias a name is given; 0 where it is absent."""
    weights = [tensors.get(f"{source.rpartition('.')[0]}.weight") for source in sources]
    return [0 if weight is None else math.prod(weight.shape[:1]) for weight in weights]


def _concatenated(parts: list[np.ndarray | None], rows: list[int]) -> np.ndarray | Lazy | None:
    """The parts one below another; zeros where one of several biases is absent (Whisper's keys)."""
    present = [part for part in parts if part is not None]
    if not present:
        return None
    first = present[0]
    if len(parts) == 1:
        return first
    if any(
        part.ndim == 0 or part.dtype != first.dtype or part.shape[1:] != first.shape[1:]
        for part in present
    ):
        return first  # its shape is refused, where nothing would be a bias of zeros
    if len(present) < len(parts) and first.ndim != 1:
        return None

    def make() -> np.ndarray:
        return np.concatenate(
            [
                np.zeros(count, first.dtype) if part is None else part
                for part, count in zip(parts, rows, strict=True)
            ]
        )

    total = sum(
        count if part is None else part.shape[0] for part, count in zip(parts, rows, strict=True)
    )
    return Lazy((total, *first.shape[1:]), first.dtype, make)
