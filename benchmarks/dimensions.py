"""What follows from a model's dimensions: the work there is to do, and what others call them."""

from __future__ import annotations

from whisper_max_backend.engine.checkpoint.dimensions import Dimensions


def encoder_operations(d: Dimensions) -> float:
    """Floating-point operations of a window's encoding: products only, two each."""
    frames, width = d.n_audio_ctx, d.n_audio_state
    convolutions = 2 * frames * 3 * d.n_mels * width + frames * 3 * width * width
    layer = 12 * frames * width * width + 2 * frames * frames * width
    return 2.0 * (convolutions + d.n_audio_layer * layer)


def step_bytes(d: Dimensions, weight_bytes: int, memory_bytes: int) -> float:
    """Bytes that a decoder step must read: weights, embeddings, the window's keys and values.

    Args:
        d: Of the model.
        weight_bytes: Of a weight.
        memory_bytes: Of a key or a value.
    """
    width = d.n_text_state
    weights = d.n_text_layer * 14 * width * width + d.n_vocab * width
    memory = d.n_text_layer * d.n_audio_ctx * 2 * width
    return float(weight_bytes * weights + memory_bytes * memory)


def transformers_names(d: Dimensions) -> dict[str, int]:
    """The dimensions as transformers' configuration has them."""
    return {
        "vocab_size": d.n_vocab,
        "num_mel_bins": d.n_mels,
        "d_model": d.n_audio_state,
        "encoder_layers": d.n_audio_layer,
        "decoder_layers": d.n_text_layer,
        "encoder_attention_heads": d.n_audio_head,
        "decoder_attention_heads": d.n_text_head,
        "encoder_ffn_dim": 4 * d.n_audio_state,
        "decoder_ffn_dim": 4 * d.n_text_state,
        "max_source_positions": d.n_audio_ctx,
        "max_target_positions": d.n_text_ctx,
    }
