"""Puts this engine in the place of CTranslate2's, in programs that do not know of it."""

from .installation import hold, install, stock_models, uninstall

__all__ = ["hold", "install", "stock_models", "uninstall"]
