"""A model's dimensions under the names of others."""

from __future__ import annotations

from whisper_max_backend.engine.checkpoint.dimensions import Dimensions


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
