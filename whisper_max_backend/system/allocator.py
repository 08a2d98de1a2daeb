"""The C library's allocator."""

from __future__ import annotations

import contextlib
import ctypes

_M_MMAP_THRESHOLD = -3  # of malloc.h
_LARGE = 1 << 20  # bytes


def return_large_blocks() -> None:
    """Have blocks of a megabyte and more go back to the system as soon as they are freed.

    A recording's samples and features are such blocks. glibc keeps them otherwise, each of its
    arenas some, so that a process whose threads take turns grows by hundreds of megabytes.
    Elsewhere nothing is done.
    """
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE)
