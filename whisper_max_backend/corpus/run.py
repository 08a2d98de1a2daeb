"""One run: the shards of a plan go to actors of Ray, until all are written.

An actor that dies is replaced, and its shards are given to others: Ray itself would keep them for
the same actor, however long its machine stays away.
"""

from __future__ import annotations

import time
import uuid
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import ray
from ray.exceptions import RayError, RayTaskError

from .cluster import Actors
from .plan import Shard
from .shards import CannotWrite
from .transcribe import MOST_SECONDS, BadModel, Done, Job, Transcriber

_LOOK = 5.0  # seconds between two looks at what Ray has
_MOST_STARTS = 5
"""Actors in a row that may die before they have loaded the model."""
_MOST_ATTEMPTS = 10
"""Actors that may die at one shard."""


class RunFailed(Exception):
    """The run cannot go on; what is written stays."""


class Watcher(Protocol):
    """Who is told how a run goes."""

    def ready(self, actors: int) -> None:
        """So many actors have loaded the model."""

    def done(self, shard: Shard, done: Done) -> None:
        """A shard is written."""

    def lost(self, reason: str) -> None:
        """An actor has died."""

    def tick(self) -> None:
        """A second has passed, or less."""


@dataclass(eq=False)
class _Actor:
    """An actor, and what it is at.

    Attributes:
        in_flight: Recordings that keep it busy; 0 until it has loaded the model.
        alone: Whether a shard at which another has died is tried.
    """

    handle: Any
    in_flight: int = 0
    shards: dict[Any, Shard] = field(default_factory=dict)
    alone: bool = False

    def has_room(self, many_left: bool) -> bool:
        """Whether it can begin another shard.

        Args:
            many_left: There are more shards than actors: it gets a second one, so that it is
                busy while the last recordings of the first are transcribed.
        """
        rows = sum(len(shard.rows) for shard in self.shards.values())
        seconds = sum(shard.seconds for shard in self.shards.values())
        wanting = rows < self.in_flight or (many_left and len(self.shards) == 1)
        return bool(self.in_flight) and not self.alone and wanting and seconds < MOST_SECONDS


class Run:
    """The actors and shards of a run."""

    def __init__(
        self,
        job: Job,
        shards: Iterator[Shard],
        number: int,
        actors: Actors,
        watcher: Watcher,
        *,
        again: bool = False,
        max_errors: int | None = None,
    ) -> None:
        """
        Args:
            job: What to do.
            shards: The longest first.
            number: Of shards.
            actors: How many, and with what.
            watcher: Who is told.
            again: Whether what failed is transcribed again.
            max_errors: Recordings that may fail before the run ends.
        """
        self._job = job
        self._shards = shards
        self._next: Shard | None = next(shards, None)
        self._number = number
        self._wanted = actors
        self._watcher = watcher
        self._again = again
        self._max_errors = max_errors
        self._errors = 0
        self._class = ray.remote(Transcriber).options(**actors.options)
        self._name = uuid.uuid4().hex
        self._actors: list[_Actor] = []
        self._loading: dict[Any, _Actor] = {}
        self._returned: deque[Shard] = deque()
        self._deaths: dict[str, int] = {}
        self._failed_starts = 0
        self._target = 0
        self._looked = float("-inf")

    def finish(self) -> None:
        """Transcribe all shards.

        Raises:
            RunFailed: There are too many errors, the model cannot be loaded, or the corpus cannot
                be written.
        """
        try:
            while self._is_left():
                self._start_actors()
                self._hand_out()
                self._release_actors()
                waiting = [ref for actor in self._actors for ref in actor.shards]
                waiting += self._loading
                if waiting:
                    for ref in ray.wait(waiting, timeout=1)[0]:
                        self._take(ref)
                else:
                    time.sleep(1)  # no machine has room for an actor
                self._watcher.tick()
        finally:
            for actor in self._actors:
                ray.kill(actor.handle)

    def _is_left(self) -> bool:
        busy = any(actor.shards for actor in self._actors)
        return busy or bool(self._returned) or self._next is not None

    def _start_actors(self) -> None:
        """As many actors as there is room for, but no more than there are shards for."""
        if time.monotonic() - self._looked > _LOOK:
            self._looked = time.monotonic()
            self._target = self._wanted.number()
        left = self._number + len(self._returned)
        while len(self._actors) < self._target and self._unused() < left:
            handle: Any = self._class.remote(self._job, self._name)
            actor = _Actor(handle)
            self._actors.append(actor)
            self._loading[handle.load.remote()] = actor

    def _unused(self) -> int:
        return sum(not actor.shards for actor in self._actors)

    def _release_actors(self) -> None:
        """When all shards are handed out, end the actors that have none: others may need the room.

        One stays, for the shard of an actor that dies.
        """
        if self._number or self._returned:
            return
        for actor in [one for one in self._actors if not one.shards][1:]:
            self._actors.remove(actor)
            self._loading = {ref: one for ref, one in self._loading.items() if one is not actor}
            ray.kill(actor.handle)

    def _hand_out(self) -> None:
        for actor in self._actors:
            if self._returned:
                # Other actors get nothing new, so that one of them is soon free for this shard.
                if actor.in_flight and not actor.shards:
                    actor.alone = True
                    self._give(actor, self._returned.popleft())
                continue
            while self._next is not None and actor.has_room(self._number > self._target):
                self._give(actor, self._next)
                self._next = next(self._shards, None)
                self._number -= 1

    def _give(self, actor: _Actor, shard: Shard) -> None:
        task = actor.handle.transcribe.remote(shard, self._again, actor.alone)
        actor.shards[task] = shard

    def _take(self, ref: Any) -> None:
        """What has become of a task."""
        loading = self._loading.pop(ref, None)
        actor = loading or next((one for one in self._actors if ref in one.shards), None)
        if actor is None:  # it has died with another task
            return
        try:
            result = ray.get(ref)
        except RayTaskError as error:
            cause = error.cause
            if isinstance(cause, CannotWrite):
                raise RunFailed(
                    f"The corpus cannot be written ({cause}): make room there, and give the same "
                    "command again"
                ) from error
            if isinstance(cause, BadModel):
                raise RunFailed(str(cause)) from error
            raise
        except RayError as error:
            self._lose(actor, error, at_start=loading is not None)
            return
        if loading is not None:
            actor.in_flight = result
            self._failed_starts = 0
            self._watcher.ready(sum(one.in_flight > 0 for one in self._actors))
            return
        actor.alone = False
        self._finished(actor.shards.pop(ref), result)

    def _finished(self, shard: Shard, done: Done) -> None:
        self._watcher.done(shard, done)
        self._errors += done.errors
        if self._max_errors is not None and self._errors > self._max_errors:
            raise RunFailed(
                f"{self._errors} recordings have failed, more than --max-errors {self._max_errors}"
            )

    def _lose(self, actor: _Actor, error: RayError, at_start: bool) -> None:
        """Take a dead actor's shards back."""
        self._actors.remove(actor)
        self._loading = {ref: one for ref, one in self._loading.items() if one is not actor}
        ray.kill(actor.handle)  # it may live on behind a network that is down
        reason = str(error).strip().splitlines()[0]
        self._watcher.lost(reason)
        if at_start:
            self._failed_starts += 1
            if self._failed_starts >= _MOST_STARTS:
                raise RunFailed(f"Processes die while they load the model: {reason}") from error
        for shard in actor.shards.values():
            self._deaths[shard.name] = self._deaths.get(shard.name, 0) + 1
            if self._deaths[shard.name] >= _MOST_ATTEMPTS:
                raise RunFailed(
                    f"{_MOST_ATTEMPTS} processes have died at shard {shard.name}: {reason}"
                ) from error
            self._returned.append(shard)
