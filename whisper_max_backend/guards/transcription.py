"""A transcription that guards look at while it is made."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from faster_whisper.transcribe import Segment, TranscriptionInfo
from faster_whisper.vad import VadOptions

from .coverage import Coverage, said_beside
from .loops import Loops
from .no_speech import NoSpeech
from .prompts import Decoded, prompts_without_refused
from .refusals import Guard, guarded, refused
from .speech import HeardSpeech
from .times import Times

if TYPE_CHECKING:
    from tokenizers import Tokenizer

GUARDS = (NoSpeech.name, Loops.name, Times.name, Coverage.name)
"""The names of all guards."""

_SILENCE_SECONDS = 0.5
"""Before audio that is decoded alone, so that no frame of it is as before."""

_log = logging.getLogger("whisper_max_backend")


def chosen(guards: bool | str | Iterable[str] | None) -> frozenset[str]:
    """The names of the guards that a caller wants.

    Raises:
        ValueError: One of them is unknown.
    """
    if guards is None or isinstance(guards, bool):
        return frozenset(GUARDS if guards else ())
    names = frozenset([guards] if isinstance(guards, str) else guards)
    unknown = ", ".join(sorted(repr(name) for name in names - set(GUARDS)))
    if unknown:
        raise ValueError(f"unknown guards {unknown}: choose of {', '.join(GUARDS)}, or give True")
    return names


@dataclass(frozen=True)
class Recording:
    """What is transcribed, and by what.

    Attributes:
        samples: ``[samples]``.
        rate: Samples a second.
        tokenizer: The model's.
        decode: Transcribes some samples alone in a language, with the caller's options.
    """

    samples: np.ndarray
    rate: int
    tokenizer: Tokenizer
    decode: Callable[[np.ndarray, str], Sequence[Segment]]


class GuardedTranscription:
    """Gives the segments that guards let pass, and those that are found again, in their order.

    Attributes:
        info: The reference's, with what guards did.
    """

    def __init__(
        self, names: Collection[str], recording: Recording, info: TranscriptionInfo
    ) -> None:
        """Look at one transcription.

        Args:
            names: Of the guards, some of `GUARDS`.
            recording: What is transcribed.
            info: What the reference says of it.
        """
        self.info = guarded(info)
        self._names = names
        self._recording = recording
        self._speech = HeardSpeech(recording.samples, recording.rate)
        self._coverage = Coverage(
            self._speech,
            recording.samples,
            recording.rate,
            info.vad_options.threshold if isinstance(info.vad_options, VadOptions) else None,
            _regions(info, recording.rate),
            lambda samples: recording.decode(samples, info.language),
        )

    def segments(self, segments: Generator[Segment]) -> Generator[Segment]:
        """Judge the segments of the reference as they come."""
        guards = self._guards(self.info.duration)
        decoded: list[Decoded] = []
        last: Segment | None = None  # of those that were kept
        covered = 0.0  # until when
        number = 0
        try:
            while True:
                with prompts_without_refused(decoded):
                    segment = next(segments, None)
                kept = None
                if segment is not None:
                    kept = self._judged(segment, guards)
                    decoded.append((segment.tokens, kept is not None))
                    if kept is None:
                        continue
                until = self.info.duration if kept is None else kept.start
                for each in (*self._recovered(covered, until, last, kept), kept):
                    if each is not None:
                        number += 1
                        each.id = number
                        yield each
                        last, covered = each, max(covered, each.end)
                if kept is None:
                    break
        finally:
            segments.close()

    def _guards(self, duration: float) -> list[Guard]:
        """New ones, that have seen nothing, for audio until a time."""
        end_of_text = self._recording.tokenizer.token_to_id("<|endoftext|>")
        assert end_of_text is not None  # the reference's tokenizer needs it, too
        ratio = self.info.transcription_options.compression_ratio_threshold
        guards: tuple[Guard, ...] = (
            Times(duration, self._encoded),
            NoSpeech(self._speech, self._decoded_alone),
            Loops(end_of_text, ratio, self._decoded_alone),
        )
        return [guard for guard in guards if guard.name in self._names]

    def _judged(self, segment: Segment, guards: Sequence[Guard]) -> Segment | None:
        """What guards leave of a segment."""
        kept: Segment | None = segment
        for guard in guards:
            kept, out, reason = guard.judge(kept)
            if out is not None:
                self._refuse(out, guard.name, reason)
            if kept is None:
                break
        return kept

    def _refuse(self, segment: Segment, guard: str, reason: str) -> None:
        self.info.refused.append(refused(segment, guard, reason))
        _log.info(
            "The guard %s refused %r at %.2f s: %s", guard, segment.text, segment.start, reason
        )

    def _recovered(
        self, start: float, end: float, before: Segment | None, after: Segment | None
    ) -> Iterator[Segment]:
        """Segments of the speech between two others, if there is any."""
        if Coverage.name not in self._names:
            return
        for first, last in self._coverage.stretches(start, end):
            _log.info("No segment covers the speech from %.2f to %.2f s: once more", first, last)
            guards = self._guards(last)
            found = False
            for segment in self._coverage.decode(first, last):
                kept = self._judged(segment, guards)
                if kept is None:
                    continue
                reason = said_beside(kept, [each for each in (before, after) if each is not None])
                found = True
                if reason:
                    self._refuse(kept, Coverage.name, reason)
                    continue
                self.info.recovered.append(kept)
                before = kept
                yield kept
            if not found:
                self.info.uncovered.append((first, last))
                _log.info("The speech from %.2f to %.2f s has no text", first, last)

    def _decoded_alone(self, start: float, end: float) -> str:
        """The text of the audio between two times, with silence before it."""
        rate = self._recording.rate
        samples = self._recording.samples[max(0, int(start * rate)) : int(end * rate)]
        samples = np.pad(samples, (int(_SILENCE_SECONDS * rate), 0))
        segments = self._recording.decode(samples, self.info.language)
        return "".join(segment.text for segment in segments)

    def _encoded(self, text: str) -> list[int]:
        return list(self._recording.tokenizer.encode(text, add_special_tokens=False).ids)


def _regions(info: TranscriptionInfo, rate: int) -> list[tuple[float, float]]:
    """Start and end, in seconds, of what is transcribed."""
    clips = info.transcription_options.clip_timestamps
    if isinstance(clips, str):
        clips = [float(time) for time in clips.split(",") if time.strip()]
    if clips and isinstance(clips[0], dict):  # of a batched transcription, in samples
        return [(clip["start"] / rate, clip["end"] / rate) for clip in clips]
    times = list(clips) or [0.0]
    if len(times) % 2 == 1:
        times.append(info.duration)
    return [
        (start, min(end, info.duration)) for start, end in zip(times[::2], times[1::2], strict=True)
    ]
