"""Text while people speak: `LiveTranscriber` takes audio in pieces and gives words that stay."""

from .transcriber import LiveTranscriber
from .words import LiveWord, Update

__all__ = ["LiveTranscriber", "LiveWord", "Update"]
