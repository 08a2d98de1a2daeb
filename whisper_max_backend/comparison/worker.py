"""A process that keeps one model loaded with one backend, and transcribes what it is sent.

Each backend has a process of its own, so that its memory is its own; ending the process is what
stops a transcription at any point.
"""

from __future__ import annotations

import logging
import multiprocessing
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import psutil

from .choices import Choice

_log = logging.getLogger("whisper_max_backend")
_WARM_UP_SECONDS = 3
_LAST_SECONDS = 1
_ENDED = "The backend's process has ended unasked; it may have run out of memory."


@dataclass(frozen=True)
class Ready:
    """The model is loaded and was tried once.

    Attributes:
        seconds: What both took.
        start_seconds: From the start of the process until the model was loaded.
    """

    seconds: float
    start_seconds: float


@dataclass(frozen=True)
class Heard:
    """A segment; `elapsed` is the seconds since the transcription began."""

    start: float
    end: float
    text: str
    elapsed: float


@dataclass(frozen=True)
class Finished:
    """All segments were told; `elapsed` as in `Heard`."""

    elapsed: float
    language: str


@dataclass(frozen=True)
class Failed:
    """The model was not loaded, or the audio not transcribed."""

    message: str


Event = Ready | Heard | Finished


class BackendFailed(RuntimeError):
    """The model was not loaded, or the audio not transcribed, or the process is gone."""


@dataclass
class Worker:
    """The parent's side.

    Args:
        model: Name or path.
        choice: Backend, device and precision.
        loading: Further arguments of `load_model`.
    """

    model: str
    choice: Choice
    loading: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # A forked child of a threaded server may hang; a fresh one also has memory of its own.
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, self.model, self.choice, dict(self.loading)), daemon=True
        )
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        """Of the process, which is running."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.is_alive()

    def transcribe(self, samples: np.ndarray, options: Mapping[str, Any]) -> None:
        """Begin; `next_event` tells the rest. `samples` are float32 [samples] at 16 kHz."""
        try:
            self._connection.send((samples, dict(options)))
        except OSError as error:
            raise BackendFailed(_ENDED) from error

    def next_event(self, timeout: float) -> Event | None:
        """What the process says next, or None if it says nothing for `timeout` seconds.

        Raises:
            BackendFailed: It says so, or has ended.
        """
        try:
            if not self._connection.poll(timeout):
                return None
            event: Event | Failed = self._connection.recv()
        except (EOFError, OSError) as error:
            raise BackendFailed(_ENDED) from error
        if isinstance(event, Failed):
            raise BackendFailed(event.message)
        return event

    def end(self) -> None:
        """End the process, whatever it is doing."""
        self._connection.close()  # which one that waits takes for its end
        self._process.join(_LAST_SECONDS)
        self._process.kill()
        self._process.join()


def _serve(connection: Connection, model: str, choice: Choice, loading: dict[str, Any]) -> None:
    """The child's side: load, then transcribe what comes until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's, which ends us
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    _log.setLevel(logging.INFO)
    from .. import load_model

    try:
        started = time.perf_counter()
        transcriber = load_model(
            model, choice.backend, choice.device, choice.compute_type, **loading
        )
        start_seconds = time.time() - psutil.Process().create_time()
        _try_once(transcriber)
        connection.send(Ready(time.perf_counter() - started, start_seconds))
        while True:
            samples, options = connection.recv()
            try:
                _transcribe(connection, transcriber, samples, options)
            except Exception as error:  # a plugin's backend may raise anything
                _log.exception("%s did not transcribe", choice.label)
                connection.send(Failed(str(error) or type(error).__name__))
    except (EOFError, BrokenPipeError):
        pass
    except (ImportError, OSError, ValueError, RuntimeError) as error:  # what says all that is known
        _log.debug("%s was not loaded", choice.label, exc_info=error)
        connection.send(Failed(str(error) or type(error).__name__))
    except Exception as error:
        _log.exception("%s was not loaded", choice.label)
        connection.send(Failed(str(error) or type(error).__name__))


def _try_once(transcriber: Any) -> None:
    """What a backend makes on first use is no part of what it takes to transcribe."""
    noise = np.random.default_rng(0).normal(0, 1e-3, _WARM_UP_SECONDS * 16_000)
    segments, _ = transcriber.transcribe(noise.astype(np.float32), language="en", temperature=0.0)
    list(segments)


def _transcribe(
    connection: Connection, transcriber: Any, samples: np.ndarray, options: dict[str, Any]
) -> None:
    started = time.perf_counter()
    segments, info = transcriber.transcribe(samples, **options)
    for segment in segments:
        elapsed = time.perf_counter() - started
        connection.send(Heard(segment.start, segment.end, segment.text, elapsed))
    connection.send(Finished(time.perf_counter() - started, info.language))
