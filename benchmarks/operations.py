"""The work that follows from a model's dimensions: operations, and bytes that are read."""

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
