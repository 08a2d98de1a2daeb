"""Takes the figures: every backend in a process of its own, in turns, on the same samples."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean, median
from typing import Any

import numpy as np

from .choices import Choice
from .meters import Meter, Sample
from .words import WordComparison, compare_words
from .worker import BackendFailed, Finished, Heard, Ready, Worker

SAMPLING_RATE = 16_000
_PAUSE = 0.25  # seconds before every turn: OpenMP's threads spin for 0.2 s after their work
_LOOK_SECONDS = 0.5


@dataclass(frozen=True)
class Recording:
    """What is transcribed.

    Attributes:
        samples: float32 [samples] at 16 kHz.
        transcript: What is said in it, where that is known.
    """

    name: str
    samples: np.ndarray
    transcript: str | None = None

    @property
    def duration(self) -> float:
        """Seconds."""
        return len(self.samples) / SAMPLING_RATE


@dataclass
class Transcription:
    """One backend on one recording.

    Attributes:
        seconds: Of every turn.
        first_text: Seconds until the first segment, of every turn that had one.
        samples: What the process used in every turn.
        problem: Why there is no text.
        speed_up: Ratio of the medians, over the side that the others are compared with.
        words: How the text differs from the transcript, or else from that side's text.
    """

    text: str = ""
    language: str = ""
    seconds: list[float] = field(default_factory=list)
    first_text: list[float] = field(default_factory=list)
    samples: list[list[Sample]] = field(default_factory=list)
    problem: str = ""
    speed_up: float | None = None
    words: WordComparison | None = None

    @property
    def median(self) -> float | None:
        """Seconds."""
        return median(self.seconds) if self.seconds else None

    @property
    def peak_memory(self) -> int | None:
        """Resident, bytes."""
        return max((one.memory for turn in self.samples for one in turn), default=None)

    @property
    def cpu(self) -> float | None:
        """Mean, 1 for a core at work all the time."""
        return _mean_over_time([[(one.seconds, one.cpu) for one in turn] for turn in self.samples])

    @property
    def gpu(self) -> float | None:
        """Mean, 1 for a GPU at work all the time."""
        seen = [one.gpu for turn in self.samples for one in turn if one.gpu is not None]
        return mean(seen) if seen else None


@dataclass
class MeasuredSide:
    """One backend with a precision.

    Attributes:
        start_seconds: From the start of its process until the model was loaded.
        transcriptions: One for each recording.
        problem: Why the model was not loaded.
    """

    choice: Choice
    start_seconds: float | None = None
    transcriptions: list[Transcription] = field(default_factory=list)
    problem: str = ""


def measure(
    model: str,
    choices: Sequence[Choice],
    recordings: Sequence[Recording],
    options: Mapping[str, Any],
    *,
    loading: Mapping[str, Any] | None = None,
    rounds: int = 3,
    against: Choice | None = None,
    tell: Callable[[str], None] = lambda what: None,
) -> list[MeasuredSide]:
    """Transcribe every recording with every choice, `rounds` times, the choices taking turns.

    What fails is noted in the side or the transcription, and the rest goes on.

    Args:
        model: Name or path.
        options: Of `transcribe`, for all sides.
        loading: Further arguments of `load_model`.
        against: The choice that the others are compared with; the first if not given.
        tell: Is told what happens next, for people who wait.

    Returns:
        A side for each choice, in their order.
    """
    sides = [MeasuredSide(choice) for choice in choices]
    workers: dict[int, Worker] = {}
    try:
        for index, side in enumerate(sides):
            tell(f"loading {side.choice.label}")
            try:
                # A first start compiles and fetches, and the compiler's memory stays: that process
                # is not the one that is measured.
                for _ in range(2):
                    if index in workers:
                        workers[index].end()
                    workers[index] = Worker(model, side.choice, dict(loading or {}))
                    side.start_seconds = _loaded(workers[index])
            except BackendFailed as error:
                side.problem = str(error)
        for recording in recordings:
            for side in sides:
                side.transcriptions.append(Transcription(problem=side.problem))
            for turn in range(rounds):
                for index, side in enumerate(sides):
                    result = side.transcriptions[-1]
                    if result.problem:
                        continue
                    tell(f"{recording.name}: {side.choice.label}, {turn + 1} of {rounds}")
                    time.sleep(_PAUSE)
                    try:
                        _take_turn(workers[index], recording, options, result)
                    except BackendFailed as error:
                        result.problem = str(error)
                        if not workers[index].alive:
                            side.problem = str(error)
    finally:
        for worker in workers.values():
            worker.end()
    compared_with = sides[choices.index(against) if against is not None else 0]
    for number, recording in enumerate(recordings):
        _compare(
            [side.transcriptions[number] for side in sides],
            compared_with.transcriptions[number],
            recording.transcript,
        )
    return sides


def _loaded(worker: Worker) -> float:
    while True:
        event = worker.next_event(_LOOK_SECONDS)
        if isinstance(event, Ready):
            return event.start_seconds


def _take_turn(
    worker: Worker, recording: Recording, options: Mapping[str, Any], result: Transcription
) -> None:
    pieces: list[Heard] = []
    with Meter(worker.pid) as meter:
        worker.transcribe(recording.samples, options)
        while True:
            event = worker.next_event(_LOOK_SECONDS)
            if isinstance(event, Heard):
                pieces.append(event)
            elif isinstance(event, Finished):
                break
    result.seconds.append(event.elapsed)
    result.first_text += [piece.elapsed for piece in pieces[:1]]
    result.samples.append(meter.samples)
    result.language = event.language
    result.text = "".join(piece.text for piece in pieces).strip()


def _compare(
    results: Sequence[Transcription], compared_with: Transcription, transcript: str | None
) -> None:
    """Fill in what takes two sides."""
    for result in results:
        if result.median is None:
            continue
        if compared_with.median is not None:
            result.speed_up = compared_with.median / result.median
        if transcript is not None:
            result.words = compare_words(transcript, result.text)
        elif compared_with.median is not None and result is not compared_with:
            result.words = compare_words(compared_with.text, result.text)


def _mean_over_time(turns: Sequence[Sequence[tuple[float, float]]]) -> float | None:
    """The mean of values that each hold from the time before to their own."""
    total = weighted = 0.0
    for turn in turns:
        before = 0.0
        for seconds, value in turn:
            total += seconds - before
            weighted += value * (seconds - before)
            before = seconds
    return weighted / total if total else None
