"""The decoder's attention: to what was said before, and to the window."""

from __future__ import annotations

from collections.abc import Mapping

from max.graph import TensorValue, Value

from .layers import FEW_ROWS, Layers

SPLITS = 12
"""Parts of a window's frames that are attended to at the same time, where queries are few."""


def self_attention(
    layers: Layers,
    head_size: int,
    given: Mapping[str, Value],
    qkv: TensorValue,
    layer: TensorValue,
    new: int,
) -> TensorValue:
    """New tokens over their rows' histories, which they join: ``[items, queries, width]``.

    Args:
        layers: Of the graph.
        head_size: Of the heads.
        given: ``kv_cache``, ``slot_table`` and ``positions``, see `signatures`.
        qkv: Their queries, keys and values, ``[items, queries, 3 * width]``.
        layer: Its number.
        new: How many new tokens of a row are worked on together.
    """
    *tokens, width = qkv.shape
    inputs = {
        "kv_cache": given["kv_cache"].buffer,
        "qkv": qkv,
        "slot_table": given["slot_table"].tensor,
        "positions": given["positions"].tensor,
        "layer": layer,
    }
    result = layers.tensor(*tokens, int(width) // 3)
    how = _how(layers, head_size)
    return layers.kernel("self_attention", inputs, [result], group=new, **how)[0]


def cross_attention(
    layers: Layers,
    head_size: int,
    given: Mapping[str, Value],
    queries: TensorValue,
    layer: TensorValue,
) -> TensorValue:
    """Queries ``[items, queries, width]`` over the items' windows, of the same shape.

    `given` are ``cross_kv`` and ``windows``, see `signatures`; the rest as of `self_attention`.
    """
    items, tokens, width = queries.shape
    inputs = {
        "queries": queries,
        "cross_kv": given["cross_kv"].tensor,
        "windows": given["windows"].tensor,
        "layer": layer,
    }
    splits = SPLITS if layers.few else 1
    split_sums = layers.floats(
        *(splits, items, tokens if layers.few else 1, int(width) // head_size, head_size + 2)
    )
    how = {**_how(layers, head_size), "group": FEW_ROWS, "splits": splits}
    return layers.kernel("cross_attention", inputs, [queries.type, split_sums], **how)[0]


def _how(layers: Layers, head_size: int) -> dict[str, bool | int]:
    return {"head_size": head_size, "tensor_cores": layers.tensor_cores, "early": layers.early}
