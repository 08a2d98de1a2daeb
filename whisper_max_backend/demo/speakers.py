"""The visitors who speak: few at once, on one model, each for a limited time."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ..live import LiveStream, LiveStreams, Update
from .recording import describe_duration

if TYPE_CHECKING:
    from faster_whisper import WhisperModel

State = Literal["loading", "listening", "ending", "ended"]

_ANSWER_SECONDS = 0.4  # that words of a piece are waited for
_MOST_BEHIND = 90.0  # seconds, of which words that do not come take up to 30
_MOST_DELAYS = 240

_log = logging.getLogger("whisper_max_backend")


@dataclass(frozen=True)
class SpeakerLimits:
    """What visitors may take.

    Attributes:
        speakers: At once.
        seconds: Of one speaker.
        idle_seconds: Without sound, after which a speaker makes room for another.
    """

    speakers: int
    seconds: float
    idle_seconds: float = 20.0


class NoRoomError(RuntimeError):
    """Too many speak already."""


class Speaker:
    """A visitor who speaks, from Start to Stop.

    Attributes:
        visitor: Who it is.
        language: Spoken; None: it is detected.
        committed: The words that stay.
        tentative: Those behind them that may still change.
        seconds: Of sound that came.
        delays: After so many seconds of sound, so many were neither committed words nor silence.
        problem: With a piece of sound, the last one.
        reason: Why there are no more words; empty if the visitor wanted it.
    """

    def __init__(self, speakers: Speakers, visitor: str, language: str | None) -> None:
        """Wait for sound."""
        self.visitor = visitor
        self.language = language
        self.committed = ""
        self.tentative = ""
        self.seconds = 0.0
        self.delays: list[tuple[float, float]] = []
        self.problem = ""
        self.reason = ""
        self._speakers = speakers
        self._stream: LiveStream | None = None
        self._settled = 0.0  # seconds of sound that are committed words or silence
        self._finished = False  # no more sound is taken
        self._ended = False  # no more words come
        self._began = self._heard = time.monotonic()
        self._hearing = threading.Lock()

    @property
    def state(self) -> State:
        if self._ended:
            return "ended"
        if self._stream is None:
            return "loading"
        return "ending" if self._finished else "listening"

    @property
    def behind(self) -> float:
        """Seconds of sound that are neither committed words nor silence."""
        return max(0.0, self.seconds - self._settled)

    def hear(self, samples: Any, rate: int, last: bool = False) -> bool:
        """Take a piece of sound, and wait a moment for words.

        Args:
            samples: As `LiveStream.push` takes them; empty to hear of words alone.
            rate: Samples a second.
            last: Nothing follows.

        Returns:
            Whether it was taken. If not, it may be sent again a little later.

        Raises:
            ValueError: It is no sound. The speaker goes on with the next piece.
        """
        if not self._hearing.acquire(blocking=False):  # a page sends one piece at a time
            return False
        try:
            return self._hear(samples, rate, last)
        except RuntimeError as error:
            if not self._ended:
                _log.warning("a visitor's speech is not transcribed: %s", error)
            self.end(str(error))
            return True
        finally:
            self._hearing.release()

    def _hear(self, samples: Any, rate: int, last: bool) -> bool:
        self._heard = self._speakers.last_heard = time.monotonic()
        if self._ended:
            return True
        stream = self._stream = self._stream or self._speakers.open_stream(self.language)
        if stream is None:
            return False
        self._read(stream, 0)
        if not self._finished:
            if self.behind > _MOST_BEHIND:
                return False
            stream.push(samples, rate)
            self.seconds += samples.shape[-1] / rate
            if last or self._has_used_its_time():
                self._finished = True
                stream.finish()
        self._read(stream, _ANSWER_SECONDS)
        return True

    def _has_used_its_time(self) -> bool:
        most = self._speakers.limits.seconds
        if max(self.seconds, self._heard - self._began) < most:
            return False
        self.reason = f"You may speak for {describe_duration(most)} here: press Start to go on."
        return True

    def _read(self, stream: LiveStream, timeout: float) -> None:
        try:
            update = stream.read(timeout)
        except TimeoutError:
            return
        if update is None:
            self.end(self.reason)
        else:
            self._add(update)

    def _add(self, update: Update) -> None:
        self.committed += update.committed_text
        self.tentative = update.tentative_text
        self._settled = self.seconds - update.behind
        self.delays = [*self.delays, (self.seconds, self.behind)][-_MOST_DELAYS:]

    def end(self, reason: str = "") -> None:
        """End at once."""
        if not self._ended:
            self._ended, self.reason = True, reason
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()

    def clear(self) -> None:
        """Forget the words so far."""
        with self._hearing:
            self.committed = self.tentative = self.problem = ""
            self.delays = []

    def is_idle(self) -> bool:
        """Whether it may make room for another: it ended, or its page does not send any more."""
        now, limits = time.monotonic(), self._speakers.limits
        return (
            self._ended
            or now - self._heard > limits.idle_seconds
            or now - self._began > limits.seconds + limits.idle_seconds
        )


class Speakers:
    """All who speak, and the model that they share.

    Attributes:
        limits: For each and all of them.
        last_heard: When a piece of sound came from any of them, as `time.monotonic` has it.
    """

    def __init__(self, load: Callable[[], WhisperModel], limits: SpeakerLimits) -> None:
        """Wait for visitors; `load` is called for the first, and may take long."""
        self.limits = limits
        self.last_heard = 0.0
        self._load = load
        self._streams: Future[LiveStreams] | None = None
        self._only_english = False
        self._speakers: list[Speaker] = []
        self._lock = threading.Lock()

    def open(self, visitor: str, language: str | None) -> Speaker:
        """A visitor begins to speak, and no longer speaks elsewhere.

        Raises:
            NoRoomError: As many speak as may.
        """
        with self._lock:
            for speaker in self._speakers:
                if speaker.visitor == visitor:
                    speaker.end("You speak in another place now.")
                elif speaker.is_idle():
                    speaker.end("Nothing came from the microphone for a while: press Start again.")
            self._speakers = [one for one in self._speakers if one.state != "ended"]
            if len(self._speakers) >= self.limits.speakers:
                raise NoRoomError(
                    f"No more than {self.limits.speakers} may speak here at once: try again in "
                    "some minutes."
                )
            self._speakers.append(Speaker(self, visitor, language))
            return self._speakers[-1]

    def open_stream(self, language: str | None) -> LiveStream | None:
        """A stream of the model; None while this is loaded.

        Raises:
            RuntimeError: It cannot be loaded, or does not know the language.
        """
        with self._lock:
            if self._streams is None:
                self._streams = Future()
                threading.Thread(
                    target=self._load_streams, args=(self._streams,), daemon=True
                ).start()
            if not self._streams.done():
                return None
            streams = self._streams
            if streams.exception() is not None:
                self._streams = None  # the next try loads anew
        loaded = streams.result()
        if self._only_english and language not in (None, "en"):
            raise RuntimeError(
                "The model here knows English alone: choose en, or have the page started with "
                "--model base."
            )
        try:
            return loaded.open(language=language)
        except ValueError as error:
            raise RuntimeError(str(error)) from error

    def _load_streams(self, streams: Future[LiveStreams]) -> None:
        try:
            model = self._load()
            self._only_english = not model.model.is_multilingual
            streams.set_result(LiveStreams(model))
        except (ImportError, OSError, RuntimeError, ValueError) as error:
            _log.warning("the model of the tab Live is not loaded: %s", error)
            streams.set_exception(RuntimeError(str(error)))
        except Exception:
            _log.exception("the model of the tab Live is not loaded")
            reason = "Something went wrong here; the log of the server says what."
            streams.set_exception(RuntimeError(reason))

    def close(self) -> None:
        """End what all say, and the threads that transcribe it."""
        with self._lock:
            for speaker in self._speakers:
                speaker.end("The server ends.")
            loaded = self._streams
        if loaded is not None and loaded.done() and loaded.exception() is None:
            loaded.result().close()
