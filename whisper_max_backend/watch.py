"""Lets a caller see how far faster-whisper's own loops are, and stop them."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Generator, Iterator
from contextvars import ContextVar
from functools import update_wrapper
from typing import TYPE_CHECKING, Any

import numpy as np

from .system.cancellation import CancelToken

if TYPE_CHECKING:
    from faster_whisper.transcribe import Segment, TranscriptionInfo

Progress = Callable[[float], None]

_ARGUMENTS = """
          progress: Called with the seconds of audio that are done, from 0 to the duration, in the
            thread that asks for the segments. With a VAD, the speech that is done counts.
          cancel: A `CancelToken`, by which another thread stops this call: it raises `Cancelled`.
          guards: True, or some of the names "no-speech", "loops", "times" and "coverage". Guards
            leave out what was not said, and decode again what was left out. The info tells what
            they did and why: `refused`, `recovered` and `uncovered`.
"""


class Watch:
    """One transcription that is watched."""

    def __init__(self, progress: Progress | None, cancel: CancelToken | None) -> None:
        """See `watched_like`, which documents both."""
        self._progress = progress
        self._cancel = cancel
        self._duration = 0.0
        self._speech = 0.0
        self._told = -1.0
        self._chunks_done = 0.0

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Within, the engine stops when the caller wants it to, and loops find this watch.

        Raises:
            Cancelled: The caller wants so already.
        """
        token = _current.set(self)
        try:
            with self._cancel.applied() if self._cancel else contextlib.nullcontext():
                yield
        finally:
            _current.reset(token)

    def tell(self, share: float) -> None:
        """A share of the work is done."""
        seconds = self._duration * min(share, 1.0)
        if self._progress is not None and seconds > self._told:
            self._told = seconds
            self._progress(seconds)

    def chunks_done(self, seconds: float) -> None:
        """So many seconds more of the chunks of a batched transcription are done."""
        self._chunks_done += seconds
        self.tell(self._chunks_done / self._speech)

    def windows(self, features: np.ndarray) -> np.ndarray:
        """The features ``[n_mels, frames]``, which tell what is done when a window is taken."""
        windows = features.view(_Windows)
        windows.watch = self
        return windows

    def segments(self, segments: Generator[Segment], info: TranscriptionInfo) -> Generator[Segment]:
        """The segments, one after another; each is made as it is asked for."""
        self._duration, self._speech = info.duration, info.duration_after_vad
        try:
            while True:
                with self.applied():
                    segment = next(segments, None)
                if segment is None:
                    break
                yield segment
            self.tell(1.0)
        finally:
            segments.close()


class _Windows(np.ndarray):
    watch: Watch

    def __getitem__(self, item: Any) -> Any:
        if isinstance(item, tuple) and isinstance(item[-1], slice):
            self.watch.tell((item[-1].start or 0) / max(1, self.shape[-1] - 1))
        return self.view(np.ndarray)[item]


_current: ContextVar[Watch | None] = ContextVar("_current", default=None)


def current_watch() -> Watch | None:
    """What the transcription of this context is watched by, if it is."""
    return _current.get()


@contextlib.contextmanager
def unwatched() -> Iterator[None]:
    """Within, no loop finds a watch; calls can be cancelled all the same."""
    token = _current.set(None)
    try:
        yield
    finally:
        _current.reset(token)


Transcribed = tuple["Generator[Segment]", "TranscriptionInfo"]


def transcribe_watched(
    transcribe: Callable[[], Transcribed],
    progress: Progress | None,
    cancel: CancelToken | None,
) -> Transcribed:
    """What the reference's `transcribe` returns, watched if the caller wants anything of it.

    Raises:
        Cancelled: The caller wanted it to stop.
    """
    if progress is None and cancel is None:
        return transcribe()
    watch = Watch(progress, cancel)
    with watch.applied():
        segments, info = transcribe()
    return watch.segments(segments, info), info


def watched_like(method: Callable[..., Any], reference: Callable[..., Any]) -> None:
    """Give a method the signature and documentation of the reference's, and what is added to it."""
    update_wrapper(method, reference)
    signature = inspect.signature(reference)
    keyword = inspect.Parameter.KEYWORD_ONLY
    added = [
        inspect.Parameter("progress", keyword, default=None, annotation="Progress | None"),
        inspect.Parameter("cancel", keyword, default=None, annotation="CancelToken | None"),
        inspect.Parameter("guards", keyword, default=False, annotation="bool | Iterable[str]"),
    ]
    vars(method)["__signature__"] = signature.replace(
        parameters=[*signature.parameters.values(), *added]
    )
    before, returns, after = (method.__doc__ or "").partition("\n        Returns:")
    method.__doc__ = before + _ARGUMENTS.rstrip() + returns + after
