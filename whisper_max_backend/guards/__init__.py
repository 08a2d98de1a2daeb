"""Takes out of a transcription what nobody said, and puts in what it has left out.

A guard judges a segment by figures: how much speech Silero hears, how fast words come, how often
a phrase is repeated. No guard knows any phrase.
"""

from .prompts import prompt_tokens
from .refusals import GuardedInfo, RefusedSegment
from .transcription import GUARDS, GuardedTranscription, Recording, chosen

__all__ = [
    "GUARDS",
    "GuardedInfo",
    "GuardedTranscription",
    "Recording",
    "RefusedSegment",
    "chosen",
    "prompt_tokens",
]
