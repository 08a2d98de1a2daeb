"""Environment variables that give an amount of memory or of disk."""

from __future__ import annotations

import os


def gigabytes(variable: str, default: float) -> int:
    """The gigabytes (10^9 bytes) that a variable gives, or else `default`, in bytes.

    Raises:
        ValueError: The variable is not a number from 0 on.
    """
    given = os.environ.get(variable) or default
    try:
        size = int(float(given) * 1e9)
    except (ValueError, OverflowError):
        size = -1
    if size < 0:
        raise ValueError(f"{variable} must be a number of gigabytes from 0 on, got {given!r}")
    return size
