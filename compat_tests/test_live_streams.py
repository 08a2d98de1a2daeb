"""Many live streams on one model, each as if it were alone."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from compat_tests.support.live import committed, pieces, updates
from compat_tests.support.models import our_model
from compat_tests.support.recordings import SAMPLING_RATE, load
from whisper_max_backend.live import LiveStream, LiveStreams, LiveTranscriber, LiveWord, Update
from whisper_max_backend.live.streams import TURN_SECONDS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

NAMES = ("jfk", "beckett", "command")
LONG = 60


@pytest.fixture
def streams() -> Iterator[LiveStreams]:
    with LiveStreams(our_model("tiny.en")) as opened:
        yield opened


def alone(name: str, seconds: float = 1.0) -> list[LiveWord]:
    """The words of a recording as the only stream."""
    return committed(
        updates(LiveTranscriber(our_model("tiny.en"), language="en"), load(name), seconds)
    )


def in_step(stream: LiveStream, samples: np.ndarray) -> list[LiveWord]:
    """A second at a time, each when the one before is transcribed, as where nobody is late."""
    words: list[LiveWord] = []
    for piece in pieces(samples, 1.0):
        stream.push(piece)
        if len(piece) == SAMPLING_RATE:
            update = stream.read(timeout=60)
            assert update is not None
            words += update.committed
    stream.finish()
    return words + committed(stream)


def speech(seconds: float) -> np.ndarray:
    return np.resize(np.concatenate([load("austen"), load("jfk")]), int(seconds * SAMPLING_RATE))


def test_each_has_the_words_that_it_has_alone(streams: LiveStreams) -> None:
    """With more streams than workers."""
    expected = [alone(name) for name in NAMES]
    found: dict[int, list[LiveWord]] = {}

    def run(number: int) -> None:
        found[number] = in_step(streams.open(language="en"), load(NAMES[number % len(NAMES)]))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[number] for number in range(5)] == [*expected, *expected[:2]]


def test_a_burst_makes_nobody_wait_for_all_of_it() -> None:
    with LiveStreams(our_model("tiny.en"), workers=1) as streams:
        greedy, modest = streams.open(language="en"), streams.open(language="en")
        greedy.push(speech(LONG))
        greedy.finish()
        for _ in range(2):  # one turn each, in turn
            modest.push(speech(1))
            assert modest.read(timeout=60) is not None
        update = greedy.read()
        assert update is not None
        assert update.behind >= LONG - 3 * TURN_SECONDS
        words = update.committed + committed(greedy)
    assert words[-1].end > LONG - 2  # none of it was dropped
    assert len(words) > 2 * LONG * 0.8


def test_who_reads_late_gets_all_at_once(streams: LiveStreams) -> None:
    stream, other = streams.open(language="en"), streams.open(language="en")
    expected = in_step(other, load("jfk"))
    for piece in pieces(load("jfk"), 1.0):
        stream.push(piece)
    stream.finish()
    while not stream._ended:
        time.sleep(0.01)
    (update,) = stream
    assert len(update.committed) >= 0.8 * len(expected)
    assert (update.tentative, update.behind) == ([], 0)
    assert stream.read() is None
    assert list(stream) == []


def test_who_goes_away_is_forgotten(streams: LiveStreams) -> None:
    stays, goes = streams.open(language="en"), streams.open(language="en")
    gone = weakref.ref(goes)
    goes.push(speech(LONG))
    del goes
    assert len(in_step(stays, load("jfk"))) > 10
    gc.collect()
    assert gone() is None


def test_closed_in_the_middle(streams: LiveStreams) -> None:
    stays, goes = streams.open(language="en"), streams.open(language="en")
    goes.push(speech(LONG))
    goes.close()
    assert goes.read() is None
    with pytest.raises(RuntimeError, match="has ended"):
        goes.push(speech(1))
    assert len(in_step(stays, load("jfk"))) > 10


def test_all_closed() -> None:
    streams = LiveStreams(our_model("tiny.en"))
    stream = streams.open(language="en")
    waiting = threading.Thread(target=lambda: ended.append(stream.read()))
    ended: list[Update | None] = []
    waiting.start()
    streams.close()
    waiting.join(60)
    assert ended == [None]
    with pytest.raises(RuntimeError, match="were closed"):
        streams.open()


def test_workers_end_when_nobody_refers_to_them() -> None:
    before = set(threading.enumerate())
    stream = LiveStreams(our_model("tiny.en"), workers=3).open(language="en")
    workers = set(threading.enumerate()) - before
    assert len(workers) == 3
    gc.collect()
    assert len(in_step(stream, load("jfk"))) > 10  # the stream holds them
    del stream
    gc.collect()
    for worker in workers:
        worker.join(60)
        assert not worker.is_alive()


def test_a_bad_piece(streams: LiveStreams) -> None:
    """It is told at once to who gave it."""
    stream = streams.open(language="en")
    with pytest.raises(ValueError, match="not numbers"):
        stream.push(np.full(SAMPLING_RATE, np.nan, np.float32))
    with pytest.raises(ValueError, match="sampling rate"):
        stream.push(np.zeros(100, np.float32), 3)
    assert in_step(stream, load("jfk")) == alone("jfk")


def test_one_that_fails(streams: LiveStreams, monkeypatch: pytest.MonkeyPatch) -> None:
    stays, fails = streams.open(language="en"), streams.open(language="en")

    def push(*_: Any) -> Update:
        raise MemoryError("no room")

    monkeypatch.setattr(fails._transcriber, "push", push)
    fails.push(speech(1))
    with pytest.raises(RuntimeError, match="has failed: no room") as told:
        fails.read(timeout=60)
    assert isinstance(told.value.__cause__, MemoryError)
    with pytest.raises(RuntimeError, match="open a new one"):
        fails.push(speech(1))
    assert in_step(stays, load("jfk")) == alone("jfk")


def test_nothing_is_new(streams: LiveStreams) -> None:
    stream = streams.open(language="en")
    stream.push(speech(0.5))
    with pytest.raises(TimeoutError):
        stream.read(timeout=0.01)


def test_tasks(streams: LiveStreams) -> None:
    """Readers that are tasks of one event loop, one of which is cancelled."""

    async def read(stream: LiveStream) -> list[LiveWord]:
        return [word async for update in stream for word in update.committed]

    async def run() -> tuple[list[list[LiveWord]], bool]:
        opened = [streams.open(language="en") for _ in range(3)]
        tasks = [asyncio.create_task(read(stream)) for stream in opened]
        await asyncio.sleep(0)
        tasks[2].cancel()
        for stream in opened:
            stream.push(load("jfk"))
            stream.finish()
        found = await asyncio.gather(*tasks[:2])
        await asyncio.wait([tasks[2]])
        return found, tasks[2].cancelled()

    found, cancelled = asyncio.run(run())
    assert found[0] == found[1]
    assert len(found[0]) > 10
    assert cancelled


@pytest.mark.parametrize("rate", [8_000, 48_000])
def test_other_rates_and_channels(streams: LiveStreams, rate: int) -> None:
    stereo = np.repeat(load("jfk")[None], 2, axis=0)
    turned = np.stack(
        [
            np.interp(
                np.arange(0, stereo.shape[1], SAMPLING_RATE / rate),
                np.arange(stereo.shape[1]),
                channel,
            )
            for channel in stereo
        ]
    )
    stream = streams.open(language="en")
    stream.push((turned * 32767).astype(np.int16), rate)
    stream.finish()
    assert len(committed(stream)) > 10


def test_an_hour_of_silence(streams: LiveStreams) -> None:
    stream = streams.open(language="en")
    stream.push(np.zeros(3600 * SAMPLING_RATE, np.int16))
    stream.push(load("jfk"))
    stream.finish()
    words = committed(stream)
    assert len(words) > 10
    assert words[0].start >= 3600


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="workers must be at least 1"):
        LiveStreams(our_model("tiny.en"), workers=0)
    with LiveStreams(our_model("tiny.en")) as streams, pytest.raises(ValueError, match="min_chunk"):
        streams.open(min_chunk=0)
