"""What guards decide, and how it is told beside the segments."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple, Protocol

from faster_whisper.transcribe import Segment, TranscriptionInfo

MARGIN_SECONDS = 0.3
"""Segments begin and end so much too early or late."""


@dataclass
class RefusedSegment(Segment):
    """A segment, or some words of one, that a guard took out.

    Attributes:
        guard: Its name.
        reason: The figures that it judged by.
    """

    guard: str
    reason: str


@dataclass
class GuardedInfo(TranscriptionInfo):
    """The reference's info, and what guards did. The lists grow as segments are asked for.

    Attributes:
        refused: What was taken out.
        recovered: Segments that were decoded again. They are among the others, in their place.
        uncovered: Start and end, in seconds, of speech that has no text after that either.
    """

    refused: list[RefusedSegment] = field(default_factory=list)
    recovered: list[Segment] = field(default_factory=list)
    uncovered: list[tuple[float, float]] = field(default_factory=list)


class Verdict(NamedTuple):
    """What a guard says of a segment.

    Attributes:
        kept: What is left of it.
        refused: What is taken out.
        reason: Why.
    """

    kept: Segment | None
    refused: Segment | None = None
    reason: str = ""


class Guard(Protocol):
    """Judges the segments of one decoding, in their order."""

    name: str

    def judge(self, segment: Segment) -> Verdict: ...


def refused(segment: Segment, guard: str, reason: str) -> RefusedSegment:
    """A segment with the reason why it is left out."""
    return RefusedSegment(**_values(segment), guard=guard, reason=reason)


def guarded(info: TranscriptionInfo) -> GuardedInfo:
    """The same info, with lists that are empty."""
    return GuardedInfo(**_values(info))


def _values(instance: Segment | TranscriptionInfo) -> dict[str, Any]:
    return {each.name: getattr(instance, each.name) for each in fields(instance)}
