"""Many recordings at once, each with the words that it has alone.

Each recording has a thread, which runs faster-whisper's own loop over its windows. So one is
decoded, or waits for its next window, while others are computed, and what several ask of a GPU at
the same time is computed together (engine/serving).
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import takewhile, zip_longest
from threading import Event
from typing import TYPE_CHECKING, Any

from .engine.api.seed import seeded

if TYPE_CHECKING:
    from concurrent.futures import Future

    from faster_whisper.transcribe import Segment, TranscriptionInfo, WhisperModel

IN_FLIGHT_ON_GPU = 64
"""Recordings at once, unless the caller says how many. It is not measured yet."""


ManyTranscription = tuple[int, "list[Segment]", "TranscriptionInfo"]
"""A recording's place among all, from 0, and its segments and info, as of `transcribe`."""


def transcribe_many(
    model: WhisperModel,
    audios: Iterable[Any],
    *,
    keys: Iterable[str | int] | None = None,
    in_flight: int | None = None,
    on_error: Callable[[int, Exception], None] | None = None,
    **options: Any,
) -> Iterator[ManyTranscription]:
    """Transcribe many recordings at once and yield each when it is done.

    A recording's tokens are those of `WhisperModel.transcribe` with the same options. Where that
    samples (at a temperature above 0, as the fallback does), its numbers come from the recording's
    key, so that the text does not depend on the others; a model of CTranslate2's has one stream of
    random numbers for all.

    Nothing is read ahead: a recording is taken from `audios` when one of those in flight is done
    and yielded. When the iterator is closed, all stop within a segment.

    Args:
        model: Of this package or of faster-whisper.
        audios: What `transcribe` takes: paths, files, or float32 waveforms at 16 kHz.
        keys: A name for each recording, for its random numbers; its index if not given.
        in_flight: How many are transcribed at the same time. If not given, 64 on a GPU, and on a
            CPU one more than the model has workers.
        on_error: Called with the index and the exception of a recording that fails, and the others
            go on. If not given, the exception ends the iteration, with a note of the index.
        options: Of `transcribe`, the same for all.

    Raises:
        TypeError: One recording instead of several, or an option that `transcribe` does not have.
        ValueError: `in_flight` below 1; more audios than keys, or the reverse.
    """
    if isinstance(audios, (str, bytes)):
        raise TypeError(f"audios must be several recordings, such as a list, got {audios[:80]!r}")
    inspect.signature(model.transcribe).bind(None, **options)
    if in_flight is None:
        in_flight = default_in_flight(model)
    if in_flight < 1:
        raise ValueError(f"in_flight must be at least 1, got {in_flight}")
    recordings = enumerate(audios) if keys is None else _with_keys(audios, keys)
    return _as_they_finish(model, recordings, in_flight, on_error, options)


def default_in_flight(model: WhisperModel) -> int:
    """How many requests keep a model busy."""
    if model.model.device == "cpu":
        return int(model.model.num_workers) + 1
    return IN_FLIGHT_ON_GPU


def _with_keys(audios: Iterable[Any], keys: Iterable[str | int]) -> Iterator[tuple[str | int, Any]]:
    missing: Any = object()
    for index, (key, audio) in enumerate(zip_longest(keys, audios, fillvalue=missing)):
        if key is missing or audio is missing:
            more = "keys" if audio is missing else "audios"
            raise ValueError(f"there are more {more}: keys and audios differ after {index}")
        yield key, audio


def _as_they_finish(
    model: WhisperModel,
    recordings: Iterable[tuple[str | int, Any]],
    in_flight: int,
    on_error: Callable[[int, Exception], None] | None,
    options: dict[str, Any],
) -> Iterator[ManyTranscription]:
    # Imported at the interpreter's end, when a model may still be loaded, it fails.
    from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait

    closed = Event()
    running: dict[Future[tuple[list[Segment], TranscriptionInfo]], int] = {}

    def transcribe(key: str | int, audio: Any) -> tuple[list[Segment], TranscriptionInfo]:
        with seeded(key):
            segments, info = model.transcribe(audio, **options)
            return list(takewhile(lambda _: not closed.is_set(), segments)), info

    def finished(timeout: float | None) -> Iterator[ManyTranscription]:
        done, _ = wait(running, timeout, FIRST_COMPLETED)
        for future in done:
            index = running.pop(future)
            try:
                segments, info = future.result()
            except Exception as error:
                if on_error is None:
                    if sys.version_info >= (3, 11):
                        error.add_note(f"transcribe_many was at the recording with index {index}")
                    raise
                on_error(index, error)
            else:
                yield index, segments, info

    with ThreadPoolExecutor(in_flight, "transcribe_many") as threads:
        try:
            for index, (key, audio) in enumerate(recordings):
                running[threads.submit(transcribe, key, audio)] = index
                yield from finished(None if len(running) == in_flight else 0)
            while running:
                yield from finished(None)
        finally:
            closed.set()
            for future in running:
                future.cancel()
