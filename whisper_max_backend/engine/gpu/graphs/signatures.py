"""What the graphs of a GPU take, for a model's dimensions and types.

Symbolic dimensions: ``items`` windows in the batch, ``rows`` hypotheses (items * beams),
``queries`` the new tokens of all beams of an item, beam by beam; ``banned`` and ``penalized`` are
as long as the longest list of ids. Weights have the names of `weights`.
"""

from __future__ import annotations

from dataclasses import replace

from max.dtype import DType

from ...checkpoint.dimensions import Dimensions
from ...graphs.signature import Input, Signature, floats, integers
from . import weight_specs

CHOICE = (
    floats("scores", "rows"),  # so far
    integers("ranges", "rows", 4),  # two half-open ranges of banned ids
    integers("banned", "rows", "banned"),
    integers("penalized", "rows", "penalized"),
    integers("checks", "rows"),  # whether timestamps together may outweigh text
    integers("first_timestamp", 1),
    integers("sampling_integers", "rows", 4),  # watched id, top-k, seed, number in the request
    floats("sampling_floats", "rows", 2),  # repetition penalty, temperature
)
"""What is chosen among the continuations of a row."""

LOOKAHEAD = (
    integers("last_timestamps", "rows", 2),  # the last one's id or -1, and 1 where it is the end
    integers("lookahead", 3),  # id of the end, whether timestamps are ruled, and scores summed
)
"""What else has to be known to go on after a step."""

ADVANCED = (
    *("tokens", "positions", "slot_table", "scores", "ranges", "checks"),
    "last_timestamps",
)
"""What is different in the next step."""


class Signatures:
    """The inputs of each graph that has weights.

    Args:
        d: Dimensions of the model.
        dtype: What the graphs compute in.
        storage: What the decoder keeps its matrices in: `dtype`, or int8.
    """

    def __init__(self, d: Dimensions, dtype: DType, storage: DType) -> None:
        embeddings = weight_specs.embeddings(d).inputs(storage)
        tokens = _tokens(d, dtype, storage)
        self.encode = Signature(
            floats("features", "batch", d.n_mels, "frames"),
            floats("encodings", "states", d.n_audio_state),  # states == (frames + 1) // 2
            *weight_specs.inputs(weight_specs.encoder_weights(d), dtype),
        )
        self.cross_kv = Signature(
            Input("cross_kv", dtype, _cross_kv_shape(d, "windows"), in_place=True),
            integers("windows", "items"),  # that are written
            floats("states", "items", "frames", d.n_audio_state),
            *weight_specs.inputs(weight_specs.cross_kv_weights(d), dtype),
        )
        self.prefill = Signature(*tokens)
        self.step = Signature(
            *tokens,
            *CHOICE,
            _length("candidates"),
            _length("capacity"),  # how many continuations of each row are looked at
        )
        in_step = {one.name: one for one in (*tokens, *CHOICE, *LOOKAHEAD)}
        self.advance = Signature(
            integers("candidates", "items", 3, "candidates"),
            _in_place(integers("note", "numbers")),
            *(_in_place(in_step[name]) for name in ADVANCED),
            in_step["first_timestamp"],
            in_step["lookahead"],
        )
        self.attended = Signature(
            Input("queries", dtype, (d.n_text_layer, "items", "queries", d.n_text_state)),
            Input("cross_kv", dtype, _cross_kv_shape(d, "windows")),
            integers("windows", "items"),
            integers("heads", "chosen", 2),  # alignment heads: layer, head
            integers("weight_sizes", "items", 3),  # as of `align`
            integers("content", "items"),  # frames that are not padding
        )
        self.probabilities = Signature(
            Input("states", dtype, ("items", "queries", d.n_text_state)),
            integers("index", 1),
            integers("ids", "items", 1, "count"),
            integers("limit", 1),  # how many ids the probabilities are over
            *embeddings,
        )
        self.align = Signature(
            *tokens,
            integers("weight_sizes", "items", 3),  # tokens, tokens to normalise over, frames
            integers("median_width", 1),  # of the median filter
            _length("aligned"),  # the most frames of an item
            integers("heads", "chosen", 2),  # alignment heads: layer, head
            integers("targets", "items", "queries", 1),
            integers("limit", 1),
        )


def _tokens(d: Dimensions, dtype: DType, storage: DType) -> tuple[Input, ...]:
    """New tokens on their way through the layers of the decoder."""
    kv_cache = (d.n_text_layer, 2, "slots", d.n_text_ctx, d.n_text_state)
    return (
        integers("tokens", "items", "queries"),
        integers("positions", "rows"),  # of each row's first new token
        integers("slot_table", "rows", d.n_text_ctx),  # the cache slot of every position
        integers("windows", "items"),
        Input("cross_kv", dtype, _cross_kv_shape(d, "windows")),
        Input("kv_cache", dtype, kv_cache, in_place=True),
        *weight_specs.inputs(weight_specs.decoder_weights(d), storage),
    )


def _cross_kv_shape(d: Dimensions, windows: str) -> tuple[int | str, ...]:
    return (d.n_text_layer, windows, "frames", 2 * d.n_text_state)


def _in_place(one: Input) -> Input:
    return replace(one, in_place=True)


def _length(dimension: str) -> Input:
    """A dimension of results that no other input has: only the buffer's length counts.

    It has elements, because a GPU has no buffers without.
    """
    return Input(dimension, DType.int32, (dimension,), shape_only=True)
