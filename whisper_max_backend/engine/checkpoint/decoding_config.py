"""What a model's configuration file says about decoding, checked when the model is loaded."""

from __future__ import annotations

import math
import reprlib
from typing import Any

from .dimensions import Dimensions
from .files import Contents


def checked_config(contents: Contents, dimensions: Dimensions, n_tokens: int) -> dict[str, Any]:
    """The configuration that a reader found, whose ids and heads are those of the model.

    Settings that are absent stay so: what is done without one is decided where it is used.

    Args:
        contents: What the reader of the model's format found.
        dimensions: Of the model.
        n_tokens: Tokens that have a text, at most as many as the embeddings.

    Raises:
        RuntimeError: A setting of a wrong type, or outside the model. With such a setting, the
            reference fails or crashes when it is used.
    """
    config = dict(contents.config)
    for key, limit in (
        ("suppress_ids", dimensions.n_vocab),
        ("suppress_ids_begin", dimensions.n_vocab),
        ("lang_ids", n_tokens),
    ):
        if key in config:
            rows = _checked(contents, key, f"token ids from 0 to {limit - 1}", (limit,))
            config[key] = [index for (index,) in rows]
    layers, heads = dimensions.n_text_layer, dimensions.n_text_head
    if "alignment_heads" in config:
        expected = f"pairs of a layer from 0 to {layers - 1} and a head from 0 to {heads - 1}"
        config["alignment_heads"] = _checked(contents, "alignment_heads", expected, (layers, heads))
    return config


def _checked(
    contents: Contents, key: str, expected: str, limits: tuple[int, ...]
) -> list[list[int]]:
    """The entries of a list, each so many numbers below the limits. RuntimeError if it is none."""
    values = contents.config[key]
    most = math.prod(limits)
    expected = f"at most {most} {expected}"
    if not isinstance(values, list) or len(values) > most:
        raise _fault(contents, key, expected, values)
    rows = []
    for value in values:
        row = value if len(limits) > 1 else [value]
        if not isinstance(row, list) or len(row) != len(limits):
            raise _fault(contents, key, expected, value)
        for number, limit in zip(row, limits, strict=True):
            # JSON has one kind of number; the reference takes 5.0 for 5, too.
            if type(number) not in (int, float) or not 0 <= number < limit or number != int(number):
                raise _fault(contents, key, expected, value)
        rows.append([int(number) for number in row])
    return rows


def _fault(contents: Contents, key: str, expected: str, found: Any) -> RuntimeError:
    name = contents.config_keys.get(key, key)
    return RuntimeError(
        f"File {contents.config_file} should have a list of {expected} as '{name}', and has "
        f"{reprlib.repr(found)} there: correct or remove it"
    )
