"""The models that are timed."""

from __future__ import annotations

from compat_tests.support.models import model_directory

__all__ = ["model_path"]


def model_path(name: str) -> str:
    """The folder of "tiny.en" or "base", which the tests have; other names stay as they are."""
    return str(model_directory(name)) if name in ("tiny.en", "base") else name
