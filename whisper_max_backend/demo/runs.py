"""A comparison under way: the backends asked one after another, each in its own process."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, BinaryIO, Literal

import numpy as np

from ..comparison.choices import Choice
from ..comparison.meters import Meter
from ..comparison.worker import BackendFailed, Finished, Heard, Ready, Worker
from .decoding import SAMPLING_RATE
from .recording import Limits, RefusedRecording, read_samples
from .turns import LineFullError, Turns

State = Literal["waiting", "loading", "transcribing", "done", "failed", "stopped"]
_LOOK_SECONDS = 0.2  # how often a silent process is left, to see whether to stop

_log = logging.getLogger("whisper_max_backend")


@dataclass
class Side:
    """One backend's part in a comparison; grows while it runs.

    Attributes:
        elapsed: Seconds of transcription, up to the last segment so far.
        load_seconds: What loading took; None if the model was loaded already.
    """

    choice: Choice
    state: State = "waiting"
    segments: list[Heard] = field(default_factory=list)
    elapsed: float = 0.0
    load_seconds: float | None = None
    language: str = ""
    problem: str = ""
    meter: Meter | None = None

    @property
    def heard(self) -> float:
        """Seconds of audio up to the end of the last segment so far."""
        return self.segments[-1].end if self.segments else 0.0

    @property
    def text(self) -> str:
        return self.text_until(None)

    def text_until(self, seconds: float | None) -> str:
        """What was said before a time of the audio; None: all."""
        return "".join(
            segment.text for segment in self.segments if seconds is None or segment.start < seconds
        ).strip()


class Workshop:
    """The loaded models of all visitors, the line for them, and what visitors may ask.

    Args:
        loading: Arguments of `load_model` for every backend.
        most_loaded: Processes kept; the one unused for longest gives way.
    """

    def __init__(
        self,
        limits: Limits,
        loading: Mapping[str, Any],
        longest_line: int = 8,
        most_loaded: int = 4,
    ) -> None:
        self.limits = limits
        self.turns = Turns(longest_line)
        self._loading = loading
        self._most_loaded = most_loaded
        self._workers: dict[tuple[str, Choice], Worker] = {}

    def worker(self, model: str, choice: Choice) -> tuple[Worker, bool]:
        """The process for a choice, and whether it is new. For the one whose turn it is."""
        key = (model, choice)
        kept = self._workers.pop(key, None)
        if kept is not None and not kept.alive:
            kept.end()
            kept = None
        while kept is None and len(self._workers) >= self._most_loaded:
            self._workers.pop(next(iter(self._workers))).end()
        self._workers[key] = kept or Worker(model, choice, self._loading)
        return self._workers[key], kept is None

    def end(self, worker: Worker) -> None:
        """Kill a process that has to stop, or is of no more use."""
        self._workers.pop((worker.model, worker.choice), None)
        worker.end()

    def close(self) -> None:
        for worker in list(self._workers.values()):
            self.end(worker)


class _Stopped(Exception):
    """The visitor wants no more."""


class Run:
    """A comparison, which begins when it is made; look at it from another thread.

    Args:
        workshop: Whose models are used.
        name: Of the recording, for people.
        recording: An open file on the disk, read when it is the run's turn; closed in any case.
        model: Name or path.
        choices: In the order in which they run.
        options: Of `transcribe`, for all sides.

    Raises:
        LineFullError: Too many wait already.
    """

    def __init__(
        self,
        workshop: Workshop,
        name: str,
        recording: BinaryIO,
        model: str,
        choices: Sequence[Choice],
        options: Mapping[str, Any],
    ) -> None:
        self.name = name
        self.model = model
        self.options = dict(options)
        self.sides = [Side(choice) for choice in choices]
        self.duration = 0.0
        self.problem = ""
        self.began = datetime.now().astimezone()
        self._recording = recording
        self._workshop = workshop
        self._stop = threading.Event()
        try:
            self._ticket = workshop.turns.join()
        except LineFullError:
            recording.close()
            raise
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End it soon, whatever it is doing; what was heard so far stays."""
        self._stop.set()

    def wait(self, timeout: float) -> bool:
        """Whether it has ended, at once or within `timeout` seconds."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    @property
    def stopped(self) -> bool:
        return self._stop.is_set()

    @property
    def before(self) -> int:
        """How many comparisons of others come first."""
        return self._workshop.turns.before(self._ticket)

    def _run(self) -> None:
        turns = self._workshop.turns
        try:
            while not turns.wait(self._ticket, _LOOK_SECONDS):
                if self.stopped:
                    return
            samples = read_samples(self._recording, self._workshop.limits)
            self.duration = len(samples) / SAMPLING_RATE
            for side in self.sides:
                if not self.stopped:
                    self._transcribe(side, samples)
        except RefusedRecording as error:
            self.problem = str(error)
        except Exception:
            _log.exception("the comparison failed")
            self.problem = "Something went wrong here; the log of the server says what."
        finally:
            self._recording.close()
            for side in self.sides:
                if side.state in ("waiting", "loading", "transcribing"):
                    side.state = "stopped"
            turns.leave(self._ticket)

    def _transcribe(self, side: Side, samples: np.ndarray) -> None:
        worker, new = self._workshop.worker(self.model, side.choice)
        try:
            if new:
                side.state = "loading"
                self._follow(side, worker)
            side.state = "transcribing"
            with Meter(worker.pid) as side.meter:
                worker.transcribe(samples, self.options)
                self._follow(side, worker)
            side.state = "done"
        except _Stopped:
            side.state = "stopped"
            self._workshop.end(worker)
        except BackendFailed as error:
            side.state, side.problem = "failed", str(error)
            self._workshop.end(worker)

    def _follow(self, side: Side, worker: Worker) -> None:
        """Note what a process says, until it has loaded or transcribed."""
        while True:
            if self.stopped:
                raise _Stopped
            event = worker.next_event(_LOOK_SECONDS)
            if isinstance(event, Ready):
                side.load_seconds = event.seconds
                return
            if isinstance(event, Heard):
                side.segments.append(event)
                side.elapsed = event.elapsed
            elif isinstance(event, Finished):
                side.elapsed, side.language = event.elapsed, event.language
                return
