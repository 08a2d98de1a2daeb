"""Progress and cancelling, on the real models."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from compat_tests.support.models import ENGLISH, our_model, texts
from compat_tests.support.recordings import SAMPLING_RATE, audio_file, load
from compat_tests.support.waiting import until
from whisper_max_backend.engine.replica import Replica
from whisper_max_backend.system.cancellation import Cancelled, CancelToken

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def minutes() -> np.ndarray:
    """A recording of several windows with music and pauses."""
    parts = [load(name) for name in ("jfk", "austen", "silence", "music", "jfk", "austen")]
    return np.concatenate(parts * 2)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"vad_filter": True},
        {"word_timestamps": True},
        {"without_timestamps": True, "condition_on_previous_text": False},
    ],
    ids=["plain", "vad", "words", "no timestamps"],
)
def test_progress_goes_from_nothing_to_the_duration(
    model: Any, minutes: np.ndarray, options: dict[str, Any]
) -> None:
    told: list[float] = []
    options = {**ENGLISH, **options}
    audio = minutes[: len(minutes) // 2]
    expected = texts(model.transcribe(audio, **options)[0])
    segments, info = model.transcribe(audio, progress=told.append, **options)
    assert texts(segments) == expected
    assert told == sorted(set(told))
    assert told[-1] == info.duration
    assert len(told) > 2 or not isinstance(model, type(our_model("tiny.en")))


def test_progress_of_a_window_comes_before_its_text(minutes: np.ndarray) -> None:
    told: list[float] = []
    segments, _ = our_model("tiny.en").transcribe(minutes, progress=told.append, **ENGLISH)
    assert told == []
    for segment in segments:
        assert told[-1] == pytest.approx(segment.seek / 100, abs=0.02)


def test_progress_within_clips(minutes: np.ndarray) -> None:
    told: list[float] = []
    segments, info = our_model("tiny.en").transcribe(
        minutes, progress=told.append, clip_timestamps="5,20,40,60", **ENGLISH
    )
    list(segments)
    assert told[0] == pytest.approx(5, abs=0.02)
    assert told == sorted(set(told))
    assert told[-1] == info.duration


def test_an_error_of_the_callback_is_raised(model: Any, minutes: np.ndarray) -> None:
    def refuse(seconds: float) -> None:
        raise KeyError(seconds)

    segments, _ = model.transcribe(minutes, progress=refuse, **ENGLISH)
    with pytest.raises(KeyError):
        list(segments)


def nothing_runs(model: Any) -> bool:
    engine = our_model("tiny.en").model
    return bool(engine.num_active_batches == 0 and engine.num_queued_batches == 0)


def run_until_cancelled(run: Callable[[CancelToken], Any], after: float) -> None:
    """Cancels a call so many seconds after its start; one that ends earlier is made again."""
    token = CancelToken()
    timer = threading.Timer(after, token.cancel)
    timer.start()
    try:
        while True:
            run(token)
    except Cancelled:
        assert token.cancelled
    finally:
        timer.join()


def test_a_token_ends_a_call_and_leaves_the_model_usable(model: Any, minutes: np.ndarray) -> None:
    """Wherever it is just then: in features, an encoder, steps or between them."""
    expected = texts(model.transcribe(minutes[: 20 * SAMPLING_RATE], **ENGLISH)[0])

    def run(token: CancelToken) -> None:
        list(model.transcribe(minutes, cancel=token, **ENGLISH)[0])

    for after in np.random.default_rng().uniform(0, 1.5, 8):
        run_until_cancelled(run, after)
        assert nothing_runs(model)
    assert texts(model.transcribe(minutes[: 20 * SAMPLING_RATE], **ENGLISH)[0]) == expected


def test_a_token_that_was_used(model: Any) -> None:
    token = CancelToken()
    token.cancel()
    assert token.cancelled
    with pytest.raises(Cancelled):
        model.transcribe(load("jfk"), cancel=token, **ENGLISH)


def test_cancelled_between_two_segments(model: Any, minutes: np.ndarray) -> None:
    token = CancelToken()
    segments, _ = model.transcribe(minutes, cancel=token, **ENGLISH)
    next(segments)
    token.cancel()
    with pytest.raises(Cancelled):
        next(segments)
    assert list(segments) == []


def test_others_with_another_token_go_on(minutes: np.ndarray) -> None:
    """They share the workers, and one waits in the queue while the other is stopped."""
    model = our_model("tiny.en")
    expected = texts(model.transcribe(load("jfk"), **ENGLISH)[0])
    found: list[list[str]] = []
    other = threading.Thread(
        target=lambda: found.append(
            texts(model.transcribe(load("jfk"), cancel=CancelToken(), **ENGLISH)[0])
        )
    )

    def run(token: CancelToken) -> None:
        list(model.transcribe(minutes, cancel=token, **ENGLISH)[0])

    other.start()
    run_until_cancelled(run, 0.1)
    other.join(60)
    assert found == [expected]


def test_closing_the_segments_ends_the_call(model: Any, minutes: np.ndarray) -> None:
    segments, _ = model.transcribe(minutes, cancel=CancelToken(), **ENGLISH)
    next(segments)
    segments.close()
    assert nothing_runs(model)
    assert list(segments) == []


def test_control_c_stops_the_encoder(minutes: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows on their way are not finished first."""
    model = our_model("tiny.en")
    features = model.feature_extractor(minutes)[:, :3000].astype(np.float32)
    begun, ended = threading.Event(), []
    encode = Replica.encode

    def watched(*arguments: Any) -> Any:
        begun.set()
        try:
            return encode(*arguments)
        except Cancelled as error:
            ended.append(error)
            raise

    monkeypatch.setattr(Replica, "encode", watched)

    def press() -> None:
        begun.wait(60)
        time.sleep(0.01)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    pressing = threading.Thread(target=press)
    pressing.start()
    with pytest.raises(KeyboardInterrupt):
        model.model.encode(np.repeat(features[None], 12, axis=0))
    pressing.join()
    assert len(ended) == 1
    assert nothing_runs(model)


def test_a_task_of_asyncio_that_is_cancelled(minutes: np.ndarray) -> None:
    """As the documentation tells how."""
    model = our_model("tiny.en")
    ended: list[BaseException] = []

    async def transcribe() -> list[str]:
        token = CancelToken()

        def run() -> list[str]:
            try:
                return texts(model.transcribe(minutes, cancel=token, **ENGLISH)[0])
            except Cancelled as error:
                ended.append(error)
                raise

        try:
            return await asyncio.to_thread(run)
        except asyncio.CancelledError:
            token.cancel()
            raise

    async def main() -> None:
        task = asyncio.create_task(transcribe())
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    until(lambda: len(ended) == 1)
    assert nothing_runs(model)


def test_a_file_is_decoded_and_watched() -> None:
    told: list[float] = []
    path = str(audio_file("jfk.flac"))
    segments, info = our_model("tiny.en").transcribe(path, progress=told.append, **ENGLISH)
    list(segments)
    assert told == [0.0, info.duration]
