"""Keeps what was refused out of the prompts of the windows that follow."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar

_MOST_TOKENS = 448
"""Of a prompt; faster-whisper takes the last half of them."""

Decoded = tuple[Sequence[int], bool]
"""The tokens of a segment, and whether it was kept."""

_decoded: ContextVar[Sequence[Decoded]] = ContextVar("_decoded", default=())


@contextlib.contextmanager
def prompts_without_refused(decoded: Sequence[Decoded]) -> Iterator[None]:
    """Within, `prompt_tokens` knows the segments so far."""
    token = _decoded.set(decoded)
    try:
        yield
    finally:
        _decoded.reset(token)


def prompt_tokens(previous: list[int]) -> list[int]:
    """The tokens of the text before, without the segments that were refused.

    Args:
        previous: As faster-whisper has them: those of a prompt, then of segment after segment.
    """
    kept: list[int] = []
    end = len(previous)
    for tokens, said in reversed(_decoded.get()):
        start = end - len(tokens)
        if start < 0 or len(kept) > _MOST_TOKENS:
            break
        if said:
            kept = [*tokens, *kept]
        end = start
    return [*previous[:end], *kept]
