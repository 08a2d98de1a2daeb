"""What the graphs of a CPU take, and their kernels, in the same order and by the same names.

Symbolic dimensions: ``items`` windows in the batch, ``rows`` hypotheses (items * beams),
``queries`` the new tokens of all beams of an item, beam by beam; ``suppressed``, ``banned`` and
``penalized`` are as long as the longest list of ids.
"""

from __future__ import annotations

from max.dtype import DType

from ...graphs.signature import Input, Signature, floats, integers, packed, sizes

THREADS = integers("threads", 1)
"""How many threads a kernel may use: the last input of every graph."""

STOP = integers("stop", 1)
"""Set by the host while a kernel runs, to end it."""

ENCODE = Signature(
    floats("features", "batch", "mels", "frames"),
    floats("encodings", "states", "width"),  # of positions; states == (frames + 1) // 2
    packed("weights"),
    integers("heads", 1),
    integers("layers", 1),
    STOP,
    THREADS,
)

CROSS_KV = Signature(
    Input("cross_kv", DType.uint8, ("layers", "windows", "heads", "head_bytes"), in_place=True),
    integers("windows", "items"),  # that are written
    floats("states", "items", "frames", "width"),
    packed("weights"),
    integers("text_width", 1),  # of the decoder
    THREADS,
)

# New tokens on their way through the layers of the decoder.
TOKENS = (
    integers("tokens", "items", "queries"),
    integers("positions", "rows"),  # of each row's first new token
    integers("slot_table", "rows", "context"),  # the cache row of every position of a history
    integers("windows", "items"),
    integers("frames", 1),  # encoder states of a window
    Input("cross_kv", DType.uint8, ("layers", "windows", "heads", "head_bytes")),
    Input(
        "kv_cache",
        DType.uint8,
        ("slots", "layers", 2, "context", "width", "number_bytes"),
        in_place=True,
    ),
    packed("embeddings"),
    packed("weights"),
)

# What is chosen among the continuations of a row.
CHOICE = (
    floats("scores", "rows"),  # so far
    integers("suppressed", "suppressed"),
    integers("ranges", "rows", 4),  # two half-open ranges of banned ids
    integers("banned", "rows", "banned"),
    integers("penalized", "rows", "penalized"),
    integers("checks", "rows"),  # whether timestamps together may outweigh text
    integers("first_timestamp", 1),
    integers("watched_id", 1),
    floats("penalty", 1),
    integers("top_k", 1),
    integers("seed", 1),
    floats("temperature", 1),
)

# How a search goes on, for steps that are made before it asks for them.
LOOKAHEAD = (
    integers("eot", 1),
    integers("timed", 1),  # whether the timestamp rule holds
    integers("summed", 1),  # whether scores are those of whole histories
    integers("remaining", "items"),  # hypotheses that may still end
    integers("last_timestamps", "rows", 2),  # of each history or -1; whether it is at the end
)

# Which encoder frames are attended to.
ATTENDED = (
    integers("heads", "chosen", 2),  # alignment heads: layer, head
    integers("content", 1),  # frames that they may attend to
    integers("until", 1),  # steps end with one that attends to this frame or a later one
)

PREFILL = Signature(*TOKENS, THREADS)

STEP = Signature(
    *TOKENS,
    *CHOICE,
    *LOOKAHEAD,
    *ATTENDED,
    integers("request_rows", 1),  # of each request that shares the step, or 0 for many
    sizes("steps", "candidates", "vocabulary"),
    STOP,
    THREADS,
)

PROBABILITIES = Signature(
    floats("states", "items", "queries", "width"),
    integers("index", 1),
    integers("ids", "items", 1, "count"),
    integers("limit", 1),
    packed("embeddings"),
    sizes("vocabulary"),
    THREADS,
)

DTW = Signature(
    floats("sums", "items", "tokens", "frames"),
    integers("matrices", "items", 3),  # first token, tokens, frames of the item's matrix
    floats("head_count", 1),  # by how many the sums are divided
    THREADS,
)

ALIGN = Signature(
    *TOKENS,
    integers("heads", "chosen", 2),  # alignment heads: layer, head
    integers("weight_sizes", "items", 3),  # tokens, tokens to normalise over, frames
    integers("median_width", 1),  # of the median filter
    integers("matrices", "items", 3),  # first token, tokens, frames of the matrix
    floats("head_count", 1),
    integers("targets", "items", "queries", 1),
    integers("limit", 1),  # how many ids the probabilities are over
    sizes("aligned", "vocabulary"),  # the most frames of an item
    THREADS,
)
