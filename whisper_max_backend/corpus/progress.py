"""How a run goes: a bar on a terminal, and a line a minute elsewhere."""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from .plan import Shard, Size
from .transcribe import Done

if TYPE_CHECKING:
    from rich.progress import TaskID

_EVERY = 60.0  # seconds between two lines


class Watch:
    """Counts what is done, and tells it.

    Attributes:
        left: What there was to do at the beginning.
        rows: Recordings that are done.
        errors: How many of them failed.
        seconds: Of audio in the others.
        actors: That have loaded the model, the most at a time.
        lost_actors: That have died.
        memory: Bytes that the largest actor had in memory.
    """

    def __init__(self, left: Size) -> None:
        """Begin.

        Args:
            left: What there is to do.
        """
        self.rows = self.errors = self.actors = self.lost_actors = self.memory = 0
        self.seconds = 0.0
        self.left = left
        self._begun = time.monotonic()
        self._ready: float | None = None
        self._ended: float | None = None
        self._told = self._begun
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        if sys.stderr.isatty():
            self._bar = Progress(
                BarColumn(), TextColumn("{task.description}"), console=Console(stderr=True)
            )
            self._task = self._bar.add_task(self._line(), total=left.rows)
            self._bar.start()

    @property
    def elapsed(self) -> float:
        """Seconds since the first actor had loaded the model, until all recordings were done."""
        if self._ready is None:
            return 0.0
        return (self._ended or time.monotonic()) - self._ready

    @property
    def speed(self) -> float:
        """Seconds of audio in a second."""
        return self.seconds / self.elapsed if self.elapsed else 0.0

    def ready(self, actors: int) -> None:
        if self._ready is None:
            self._ready = time.monotonic()
        self.actors = max(self.actors, actors)

    def done(self, shard: Shard, done: Done) -> None:
        self.rows += done.rows
        self.errors += done.errors
        self.seconds += done.seconds
        self.memory = max(self.memory, done.memory)
        if self.rows >= self.left.rows:  # ending Ray takes another second
            self._ended = time.monotonic()

    def lost(self, reason: str) -> None:
        self.lost_actors += 1
        self._tell(f"A process is lost, and replaced: {reason}")

    def tick(self) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self.rows, description=self._line())
        elif time.monotonic() - self._told >= _EVERY:
            self._told = time.monotonic()
            self._tell(self._line())

    def close(self) -> None:
        """The run has ended."""
        if self._bar is not None:
            self.tick()
            self._bar.stop()

    def figures(self) -> dict[str, Any]:
        """What there is to keep of the run."""
        return {
            "rows": self.rows,
            "errors": self.errors,
            "audio_s": self.seconds,
            "elapsed_s": self.elapsed,
            "speed": self.speed,
            "actors": self.actors,
            "lost_actors": self.lost_actors,
            "actor_memory": self.memory,
        }

    def _line(self) -> str:
        if self._ready is None:
            return f"{self.left.rows} recordings to do, the model is loading"
        hours = f"{self.seconds / 3600:.2f} h"
        if self.left.seconds is not None:
            hours += f" of {self.left.seconds / 3600:.2f} h"
        return (
            f"{self.rows} of {self.left.rows} recordings, {hours} of audio, "
            f"{self.speed:.1f} times real time, {self.errors} failed, {self._time_left()} left"
        )

    def _time_left(self) -> str:
        part = self.rows / self.left.rows
        if self.left.seconds:
            part = self.seconds / self.left.seconds
        if not part:
            return "unknown time"
        return str(timedelta(seconds=round(self.elapsed * max(0.0, 1 / part - 1))))

    def _tell(self, line: str) -> None:
        if self._bar is not None:
            self._bar.console.print(line, markup=False, highlight=False)
        else:
            print(time.strftime("%H:%M"), line, file=sys.stderr, flush=True)
