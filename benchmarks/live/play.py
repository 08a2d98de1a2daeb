"""One stream by a simulated clock.

The clock gives a piece of audio when it has been spoken, and goes on while it is transcribed. What
was spoken meanwhile comes with the next piece. A stopped clock waits meanwhile, as for a machine of
any speed: each chunk is a piece.
"""

from __future__ import annotations

import difflib
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from benchmarks.accuracy.errors import error_rate, words
from benchmarks.live.lagging import Lagging, lagging
from benchmarks.live.stream import Stream
from benchmarks.speech import RATE
from whisper_max_backend.live import LiveTranscriber, LiveWord, Update


class Live(Protocol):
    """A live transcription of this package, or of another program."""

    def push(self, samples: np.ndarray) -> Update:
        """Takes the next piece; see `LiveTranscriber`."""

    def finish(self) -> Update:
        """The end of the stream."""

    def cpu_seconds(self) -> float:
        """Of all threads of the process that transcribes, since the stream was opened."""


class Here:
    """One in this process."""

    def __init__(self, live: LiveTranscriber) -> None:
        self.push = live.push
        self.finish = live.finish
        self._begun = time.process_time()

    def cpu_seconds(self) -> float:
        return time.process_time() - self._begun


@dataclass(frozen=True)
class Run:
    """One stream.

    Attributes:
        side: Whose model, and the policy.
        chunk: Seconds of new audio that a decoding waits for.
        piece_seconds: Seconds of audio in a piece on average: more than a chunk where the side
            cannot keep up.
        error_rate: Word errors for each word of the transcript.
        first_seconds: From the end of the first word that both have to its commitment.
        delay_seconds: The same, on average over all words that the whole recording has, too.
        delay_p95_seconds: For 19 of 20 words it is less.
        erased: Tentative words that were taken back, for each committed one.
        real_time_factor: Seconds of work for each second of audio.
        cpu_seconds: The same, of all threads.
        lagging: See `Lagging`, None where OmniSTEval is not installed.
    """

    side: str
    chunk: float
    piece_seconds: float
    error_rate: float
    first_seconds: float
    delay_seconds: float
    delay_p95_seconds: float
    erased: float
    real_time_factor: float
    cpu_seconds: float
    lagging: Lagging | None


def play(live: Live, stream: Stream, side: str, chunk: float, stopped: bool = False) -> Run:
    """One stream, in pieces of a chunk, or of what was spoken during the last one.

    Args:
        live: What transcribes it.
        stream: What is played.
        side: The name of the run.
        chunk: Seconds.
        stopped: Whether the clock waits while a piece is transcribed.
    """
    committed: list[tuple[LiveWord, float]] = []
    written: list[tuple[str, float, float]] = []
    guessed: list[LiveWord] = []
    erased = pieces = heard = 0
    clock = worked = 0.0
    finished = False
    while not finished:
        finished = heard == len(stream.samples)
        end = min(len(stream.samples), max(heard + int(chunk * RATE), int(clock * RATE)))
        clock = max(clock, end / RATE)
        begun = time.perf_counter()
        update = live.finish() if finished else live.push(stream.samples[heard:end])
        seconds = time.perf_counter() - begun
        worked += seconds
        clock += 0.0 if stopped else seconds
        pieces += not finished
        heard = end
        committed += [(word, clock) for word in update.committed]
        text = "".join(word.text for word in update.committed)
        written += [(word, heard / RATE, clock) for word in text.split()]
        now = [*update.committed, *update.tentative]
        same = [a.text.strip() == b.text.strip() for a, b in zip(guessed, now, strict=False)]
        erased += len(guessed) - (same.index(False) if False in same else len(same))
        guessed = update.tentative
    delays = _delays(committed, stream.spoken)
    return Run(
        side,
        chunk,
        stream.seconds / pieces,
        error_rate([stream.transcript], ["".join(word.text for word, _ in committed)]),
        delays[0],
        statistics.mean(delays),
        float(np.percentile(delays, 95)),
        erased / max(1, len(committed)),
        worked / stream.seconds,
        live.cpu_seconds() / stream.seconds,
        lagging(stream.passages, written, stream.seconds),
    )


def _delays(
    committed: Sequence[tuple[LiveWord, float]], spoken: Sequence[tuple[str, float]]
) -> list[float]:
    """From the end of each word, where the whole recording has it, to its commitment."""
    texts = [words(word.text) for word, _ in committed]
    expected = [text for text, _ in spoken]
    matcher = difflib.SequenceMatcher(None, texts, expected, autojunk=False)
    return [
        committed[block.a + k][1] - spoken[block.b + k][1]
        for block in matcher.get_matching_blocks()
        for k in range(block.size)
    ]
