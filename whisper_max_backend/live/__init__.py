"""Text while people speak: `LiveTranscriber` takes audio in pieces and gives words that stay.

`LiveStreams` does so for many streams on one model.
"""

from .streams import LiveStream, LiveStreams
from .transcriber import LiveTranscriber
from .words import LiveWord, Update

__all__ = ["LiveStream", "LiveStreams", "LiveTranscriber", "LiveWord", "Update"]
