"""Comparison of errors: what the reference raises decides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


def raised(call: Callable[[], Any]) -> Exception:
    """What a call raises, as it must."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 (which one is the question)
        call()
    return caught.value


def same_error(reference: Callable[[], Any], ours: Callable[[], Any], *words: str) -> None:
    """Both fail with the same type of exception, or ours with a subclass; `words` are in ours."""
    expected, found = raised(reference), raised(ours)
    assert isinstance(found, type(expected)), f"{found!r} instead of {expected!r}"
    for word in words:
        assert word.lower() in str(found).lower()
