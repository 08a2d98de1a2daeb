"""Many streams on one model: audio is taken at once, and transcribed in turn."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..many import default_in_flight
from ..system.fork_and_exit import check_not_forked
from .samples import RATE, Resampler, Samples
from .transcriber import LiveTranscriber, Policy
from .words import Update

if TYPE_CHECKING:
    from faster_whisper import WhisperModel

TURN_SECONDS = 15
"""Of audio that a stream may have transcribed before the others have their turn."""


class LiveStreams:
    """Transcribes the streams that it opens. A context manager, which closes them."""

    def __init__(self, model: WhisperModel, *, workers: int | None = None) -> None:
        """Start the workers.

        Args:
            model: Of this package. All streams share it.
            workers: Streams that are transcribed at the same time. If not given, as many as the
                device computes together: 64 on a GPU, and on a CPU one more than the model has
                workers.

        Raises:
            ValueError: `workers` below 1.
        """
        if workers is None:
            workers = default_in_flight(model)
        if workers < 1:
            raise ValueError(f"workers must be at least 1, got {workers}")
        self._model = model
        self._turns = _Turns()
        for number in range(workers):
            threading.Thread(
                target=_work, args=(self._turns,), name=f"live {number}", daemon=True
            ).start()
        self._stop = weakref.finalize(self, self._turns.close)

    def open(
        self,
        policy: Policy = "alignatt",
        *,
        language: str | None = None,
        task: str = "transcribe",
        min_chunk: float = 1.0,
        hold_back: float = 0.4,
    ) -> LiveStream:
        """A new stream. For the arguments and errors see `LiveTranscriber`.

        A stream that nobody refers to any more is closed.

        Raises:
            RuntimeError: All streams were closed.
        """
        transcriber = LiveTranscriber(
            self._model,
            policy,
            language=language,
            task=task,
            min_chunk=min_chunk,
            hold_back=hold_back,
        )
        return LiveStream(self, self._turns, transcriber, min_chunk)

    def close(self) -> None:
        """Close all streams, and end the workers when they are done with their piece."""
        self._stop()

    def __enter__(self) -> LiveStreams:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class LiveStream:
    """One of many streams; see `LiveStreams.open`. Iterate it, by `for` or `async for`, to read.

    Audio is given and updates are read by different threads or tasks as they like. A reader that
    is slow gets one update of all that is new since the last one.
    """

    def __init__(
        self, streams: LiveStreams, turns: _Turns, transcriber: LiveTranscriber, min_chunk: float
    ) -> None:
        self._streams = streams  # which lives as long as one of its streams
        self._turns = turns
        self._transcriber = transcriber
        self._least = round(min_chunk * RATE)
        self._resampler = Resampler()
        self._giving = threading.Lock()
        self._news = threading.Condition(turns.lock)
        self._tasks: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        # What follows is read and written with `turns.lock`.
        self._inbox: list[Samples] = []
        self._waiting = 0  # samples in it
        self._finished = False  # no more audio comes
        self._asked = False  # it waits for its turn, or has it
        self._ended = False  # no more updates come
        self._failure: Exception | None = None
        self._update: Update | None = None
        turns.add(self)

    def push(self, samples: Any, sampling_rate: int = RATE) -> None:
        """Take the next piece of audio, of any length; returns at once.

        Args:
            samples: ``[samples]`` or ``[channels, samples]``, floats from -1 to 1 or int16.
            sampling_rate: Samples a second.

        Raises:
            ValueError: See `LiveTranscriber.push`. The stream goes on with the next piece.
            RuntimeError: The stream is finished or closed, or failed.
        """
        with self._giving:
            self._give(self._resampler.push(samples, sampling_rate), last=False)

    def finish(self) -> None:
        """No more audio comes. The last update has all words that are left.

        Raises:
            RuntimeError: The stream is finished or closed, or failed.
        """
        with self._giving:
            self._give(self._resampler.rest(), last=True)

    def close(self) -> None:
        """End the stream now; what is not transcribed yet is dropped."""
        with self._turns.lock:
            self._end()

    @property
    def waiting(self) -> float:
        """Seconds of audio that wait for their turn."""
        with self._turns.lock:
            return self._waiting / RATE

    def read(self, timeout: float | None = None) -> Update | None:
        """Wait for words, or another state; None when the stream has ended.

        Args:
            timeout: Seconds to wait at most; without end if not given.

        Returns:
            All that is new since the last one. ``behind`` counts the audio that waits, too.

        Raises:
            TimeoutError: Nothing is new.
            RuntimeError: The transcription failed; the cause is attached.
        """
        with self._news:
            if not self._news.wait_for(self._is_new, timeout):
                raise TimeoutError(f"the stream has nothing new after {timeout} s")
            return self._taken()

    def __iter__(self) -> Iterator[Update]:
        while (update := self.read()) is not None:
            yield update

    async def __aiter__(self) -> AsyncIterator[Update]:
        while (update := await self._read_later()) is not None:
            yield update

    async def _read_later(self) -> Update | None:
        loop = asyncio.get_running_loop()
        while True:
            with self._turns.lock:
                if self._is_new():
                    return self._taken()
                news: asyncio.Future[None] = loop.create_future()
                self._tasks.append((loop, news))
            await news

    def _give(self, samples: Samples, last: bool) -> None:
        check_not_forked()  # the workers stayed in the other process
        with self._turns.lock:
            if self._failure is not None:
                raise RuntimeError("the stream has failed: open a new one") from self._failure
            if self._finished or self._ended:
                raise RuntimeError("the stream has ended: open a new one")
            self._inbox.append(samples)
            self._waiting += len(samples)
            self._finished = last
            self._ask()

    def _is_new(self) -> bool:
        return self._update is not None or self._ended

    def _taken(self) -> Update | None:
        update, self._update = self._update, None
        if update is None and self._failure is not None:
            raise RuntimeError(f"the stream has failed: {self._failure}") from self._failure
        return update

    # What follows is for the workers. All but `_transcribe` is called with the lock.

    def _ask(self) -> None:
        """Ask for a turn, if there is something to transcribe."""
        due = self._waiting >= self._least or self._finished
        if due and not self._asked and not self._ended:
            self._asked = True
            self._turns.ask(self)

    def _take(self) -> tuple[Samples, bool]:
        """The audio of one turn, and whether it is the last."""
        audio = np.concatenate([np.empty(0, np.float32), *self._inbox])
        piece, rest = np.split(audio, [TURN_SECONDS * RATE])
        self._inbox, self._waiting = [rest], len(rest)
        return piece, self._finished and not len(rest)

    def _transcribe(self, piece: Samples, last: bool) -> Update:
        update = self._transcriber.push(piece)
        return _merged(update, self._transcriber.finish()) if last else update

    def _deliver(self, update: Update, last: bool) -> None:
        if self._ended:
            return
        update = replace(update, behind=update.behind + self._waiting / RATE)
        self._update = update if self._update is None else _merged(self._update, update)
        self._asked = False
        if last:
            self._end()
        else:
            self._tell()
            self._ask()

    def _end(self, failure: Exception | None = None) -> None:
        self._failure = self._failure or failure
        self._ended = True
        self._inbox, self._waiting = [], 0
        self._tell()

    def _tell(self) -> None:
        self._news.notify_all()
        tasks, self._tasks = self._tasks, []
        for loop, news in tasks:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(_wake, news)


class _Turns:
    """Whose turn it is: the stream's that has waited longest."""

    def __init__(self) -> None:
        # The last reference to a stream may be dropped, and so all closed, by who holds the lock.
        self.lock = threading.RLock()
        self._asked = threading.Condition(self.lock)
        self._streams: weakref.WeakSet[LiveStream] = weakref.WeakSet()
        self._queue: deque[weakref.ref[LiveStream]] = deque()
        self._closed = False

    def add(self, stream: LiveStream) -> None:
        with self.lock:
            if self._closed:
                raise RuntimeError("the streams were closed: make new LiveStreams")
            self._streams.add(stream)

    def ask(self, stream: LiveStream) -> None:
        """Put a stream at the end of the queue; with the lock."""
        self._queue.append(weakref.ref(stream))
        self._asked.notify()

    def next(self) -> LiveStream | None:
        """Wait for the stream whose turn it is; None when there are no more. With the lock."""
        while not self._closed:
            if self._queue:
                stream = self._queue.popleft()()
                if stream is not None:
                    return stream
            else:
                self._asked.wait()
        return None

    def close(self) -> None:
        with self.lock:
            self._closed = True
            for stream in list(self._streams):
                stream._end()
            self._asked.notify_all()


def _work(turns: _Turns) -> None:
    while _take_turn(turns):
        pass


def _take_turn(turns: _Turns) -> bool:
    """Transcribe a piece of one stream, of which nothing is referred to afterwards."""
    with turns.lock:
        stream = turns.next()
        if stream is None:
            return False
        piece, last = stream._take()
    try:
        update = stream._transcribe(piece, last)
    except Exception as error:  # of this stream alone
        with turns.lock:
            stream._end(error)
    else:
        with turns.lock:
            stream._deliver(update, last)
    return True


def _merged(first: Update, second: Update) -> Update:
    return replace(second, committed=[*first.committed, *second.committed])


def _wake(news: asyncio.Future[None]) -> None:
    if not news.done():
        news.set_result(None)
