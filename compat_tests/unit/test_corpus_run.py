"""How shards are given to actors; Ray is replaced by one whose actors do as they are told."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.exceptions import ActorDiedError, RayTaskError

from whisper_max_backend.corpus import cluster
from whisper_max_backend.corpus.cluster import Actors
from whisper_max_backend.corpus.environment import prepare
from whisper_max_backend.corpus.plan import Shard
from whisper_max_backend.corpus.run import Run, RunFailed
from whisper_max_backend.corpus.shards import CannotWrite
from whisper_max_backend.corpus.transcribe import BadModel, Done, Job, on_cores
from whisper_max_backend.hookspecs import Row

JOB = Job(Path("/corpus"), "m")


@dataclass(eq=False)
class Task:
    """Of an actor: `load`, or the name of a shard."""

    actor: Actor
    name: str
    alone: bool = False
    rows: int = 0


@dataclass(eq=False)
class Method:
    actor: Actor
    make: Callable[..., Task]

    def remote(self, *arguments: Any) -> Task:
        task = self.make(*arguments)
        self.actor.ray.tasks.append(task)
        return task


@dataclass(eq=False)
class Actor:
    ray: Ray
    number: int

    @property
    def load(self) -> Method:
        return Method(self, lambda: Task(self, "load"))

    @property
    def transcribe(self) -> Method:
        return Method(
            self, lambda shard, again, alone: Task(self, shard.name, alone, len(shard.rows))
        )


@dataclass
class Ray:
    """Ends the oldest task first.

    Attributes:
        answer: What becomes of a task: what it gives, or an exception.
        in_flight: Recordings at an actor, whenever a task ended.
    """

    answer: Callable[[Task], Any]
    actors: list[Actor] = field(default_factory=list)
    tasks: list[Task] = field(default_factory=list)
    ended: list[Task] = field(default_factory=list)
    killed: list[int] = field(default_factory=list)
    in_flight: list[int] = field(default_factory=list)
    options_given: dict[str, Any] = field(default_factory=dict)

    def remote(self, *arguments: Any) -> Any:
        if not self.options_given:
            return self  # ray.remote(Transcriber)
        self.actors.append(Actor(self, len(self.actors)))
        return self.actors[-1]

    def options(self, **given: Any) -> Ray:
        self.options_given = given
        return self

    def wait(self, refs: list[Task], timeout: float) -> tuple[list[Task], list[Task]]:
        waiting = [task for task in self.tasks if task in refs]
        assert waiting, "the run waits for a task that nobody does"
        for actor in self.actors:
            self.in_flight.append(sum(task.rows for task in waiting if task.actor is actor))
        return [waiting[0]], waiting[1:]

    def get(self, task: Task) -> Any:
        self.tasks.remove(task)
        self.ended.append(task)
        answer = self.answer(task)
        if isinstance(answer, ActorDiedError):
            self.tasks = [one for one in self.tasks if one.actor is not task.actor]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def kill(self, actor: Actor) -> None:
        self.killed.append(actor.number)
        self.tasks = [one for one in self.tasks if one.actor is not actor]


class Told:
    def __init__(self) -> None:
        self.shards: list[str] = []
        self.lost_actors: list[str] = []
        self.most = 0

    def ready(self, actors: int) -> None:
        self.most = max(self.most, actors)

    def done(self, shard: Shard, done: Done) -> None:
        self.shards.append(shard.name)

    def lost(self, reason: str) -> None:
        self.lost_actors.append(reason)

    def tick(self) -> None:
        pass


def works(task: Task) -> Any:
    return 4 if task.name == "load" else Done(task.rows, 0, 1.0, 1)


def finish(
    monkeypatch: pytest.MonkeyPatch,
    answer: Callable[[Task], Any],
    shards: list[Shard],
    actors: int = 2,
    **options: Any,
) -> tuple[Ray, Told]:
    replaced, told = Ray(answer), Told()
    for name in ("remote", "wait", "get", "kill"):
        monkeypatch.setattr(ray, name, getattr(replaced, name))
    Run(JOB, iter(shards), len(shards), Actors(1, 0, actors), told, **options).finish()
    assert set(replaced.killed) == set(range(len(replaced.actors))), "no actor is left"
    return replaced, told


def made(number: int, rows: int = 1, duration: float | None = None) -> list[Shard]:
    row = Row("k", "s", duration=duration)
    return [Shard(f"{index}", [row] * rows) for index in range(number)]


def dies_at(name: str, times: int) -> Callable[[Task], Any]:
    left = itertools.count(1)

    def answer(task: Task) -> Any:
        return ActorDiedError() if task.name == name and next(left) <= times else works(task)

    return answer


def fails(error: Exception) -> RayTaskError:
    return RayTaskError("transcribe", "traceback", error)


def test_every_shard_is_done_once(monkeypatch: pytest.MonkeyPatch) -> None:
    used, told = finish(monkeypatch, works, made(20))
    assert sorted(told.shards, key=int) == [shard.name for shard in made(20)]
    assert (len(used.actors), told.most, told.lost_actors) == (2, 2, [])
    assert {task.actor.number for task in used.ended} == {0, 1}
    assert max(used.in_flight) == 4, "as many recordings as keep an actor busy"
    assert not any(task.alone for task in used.ended)
    assert used.options_given["max_restarts"] == 0
    assert used.options_given["num_cpus"] == 1


def test_a_second_shard_while_the_first_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    used, _ = finish(monkeypatch, works, made(20, rows=10))
    assert max(used.in_flight) == 20
    used, _ = finish(monkeypatch, works, made(3, rows=10))
    assert max(used.in_flight) == 10, "others would have none"


def test_long_recordings_are_not_all_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    used, _ = finish(monkeypatch, works, made(6, duration=5 * 3600.0), actors=1)
    assert max(used.in_flight) == 2


def test_no_more_actors_than_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    used, _ = finish(monkeypatch, works, made(3), actors=100)
    assert len(used.actors) == 3


@pytest.mark.parametrize("name", ["3", "load"])
def test_a_dead_actor_is_replaced(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    used, told = finish(monkeypatch, dies_at(name, 1), made(20))
    assert sorted(told.shards, key=int) == [shard.name for shard in made(20)]
    assert (len(used.actors), len(told.lost_actors)) == (3, 1)


def test_what_was_at_a_dead_actor_is_tried_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    used, told = finish(monkeypatch, dies_at("3", 3), made(20))
    assert sorted(told.shards, key=int) == [shard.name for shard in made(20)]
    assert [task.alone for task in used.ended if task.name == "3"] == [False, True, True, True]
    for number, task in enumerate(used.ended):
        if task.alone:
            beside = [
                other
                for other in used.ended[number + 1 :]
                if other.actor is task.actor and other.name == task.name
            ]
            assert not beside


def test_a_shard_at_which_every_actor_dies(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RunFailed, match="10 processes have died at shard 3: "):
        finish(monkeypatch, dies_at("3", 1000), made(20))


def test_actors_that_never_load(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RunFailed, match="Processes die while they load the model: "):
        finish(monkeypatch, dies_at("load", 1000), made(20))


@pytest.mark.parametrize(
    ("name", "error", "problem"),
    [
        ("load", BadModel("there is none"), r"^there is none$"),
        ("3", CannotWrite(28, "No space left on device", "/x"), "make room there, and give"),
    ],
)
def test_what_ends_a_run(
    monkeypatch: pytest.MonkeyPatch, name: str, error: Exception, problem: str
) -> None:
    def answer(task: Task) -> Any:
        return fails(error) if task.name == name else works(task)

    with pytest.raises(RunFailed, match=problem):
        finish(monkeypatch, answer, made(20))


def test_a_fault_of_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(task: Task) -> Any:
        return fails(KeyError("x")) if task.name == "3" else works(task)

    with pytest.raises(RayTaskError):
        finish(monkeypatch, answer, made(20))


def test_too_many_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(task: Task) -> Any:
        return Done(2, 2, 0.0, 1) if task.name != "load" else 4

    _, told = finish(monkeypatch, answer, made(5, rows=2), max_errors=10)
    assert len(told.shards) == 5
    with pytest.raises(RunFailed, match="12 recordings have failed, more than --max-errors 10"):
        finish(monkeypatch, answer, made(9, rows=2), max_errors=10)


def machines(*resources: dict[str, float]) -> Callable[[], Iterator[dict[str, Any]]]:
    return lambda: iter([{"Alive": True, "Resources": one} for one in resources])


@pytest.mark.parametrize(
    ("nodes", "given", "expected"),
    [
        ([{"CPU": 8}], (None, None, "auto", None), (8, 0, 1)),
        ([{"CPU": 8}, {"CPU": 6}, {}], (None, None, "auto", None), (6, 0, 2)),
        ([{"CPU": 8}, {"CPU": 6}, {}], (2, None, "auto", None), (2, 0, 7)),
        ([{"CPU": 8, "GPU": 2}], (None, None, "auto", None), (1, 1, 2)),
        ([{"CPU": 8, "GPU": 2}], (3, 0.5, "auto", None), (3, 0.5, 2)),
        ([{"CPU": 8, "GPU": 2}], (1, 0.25, "cuda", None), (1, 0.25, 8)),
        ([{"CPU": 8, "GPU": 2}], (None, None, "cpu", None), (8, 0, 1)),
        ([{}], (4, 1, "auto", 9), (4, 1, 9)),
    ],
)
def test_what_an_actor_gets(
    monkeypatch: pytest.MonkeyPatch, nodes: Any, given: Any, expected: Any
) -> None:
    monkeypatch.setattr(ray, "nodes", machines(*nodes))
    found = cluster.actors(*given)
    assert (found.cpus, found.gpus, found.number()) == expected


@pytest.mark.parametrize(
    ("backend", "cores", "recordings", "each", "at_once"),
    [
        ("auto", 2, 2, 1, 2),
        ("ctranslate2", 5, 100, 2, 2),
        ("max", 8, 1, 8, None),
        ("auto", 8, 0, 8, None),
        ("auto", 1, 100, 1, None),
        ("openai-whisper", 8, 100, 8, None),
    ],
)
def test_how_a_model_uses_the_cores_of_an_actor(
    backend: str, cores: int, recordings: int, each: int, at_once: int | None
) -> None:
    given = on_cores(backend, cores, recordings)
    assert (given["cpu_threads"], given.get("num_workers")) == (each, at_once)


@pytest.mark.parametrize(
    ("address", "own", "expected"),
    [("local", None, "0"), ("local", "5", "5"), ("auto", None, None)],
)
def test_the_priority_of_a_ray_that_is_started(
    monkeypatch: pytest.MonkeyPatch, address: str, own: str | None, expected: str | None
) -> None:
    environment = {} if own is None else {"RAY_worker_niceness": own}
    monkeypatch.setattr(os, "environ", environment)
    prepare(address)
    assert environment.get("RAY_worker_niceness") == expected


def test_machines_without_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "nodes", machines({"CPU": 2}))
    with pytest.raises(ValueError, match="no machine with 4 cores and 0 GPUs: ask for less"):
        cluster.actors(4, None, "auto", None)


class Starts:
    """Of Ray: those that fail, and what was asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, failing: int) -> None:
        self.asked: list[dict[str, Any]] = []
        self.ended = 0
        self._failing = failing
        monkeypatch.setattr(ray, "init", self.init)
        monkeypatch.setattr(ray, "shutdown", self.shutdown)

    def init(self, **given: Any) -> None:
        self.asked.append(given)
        if "_temp_dir" in given:
            Path(given["_temp_dir"]).mkdir()
        if len(self.asked) <= self._failing:
            raise Exception("it timed out")

    def shutdown(self) -> None:
        self.ended += 1


def test_a_ray_that_starts_at_the_second_try(monkeypatch: pytest.MonkeyPatch) -> None:
    starts = Starts(monkeypatch, failing=1)
    with cluster.cluster("local", dashboard=False):
        folders = [Path(given["_temp_dir"]) for given in starts.asked]
        assert folders[0] != folders[1]
        assert len(str(folders[1])) < 50, "Ray's sockets are below it"
    assert starts.ended == 2
    assert not folders[1].parent.exists()


@pytest.mark.parametrize(
    ("address", "problem", "tries"),
    [
        ("local", "Ray cannot be started here: it timed out", 3),
        ("1.2.3.4:5", "Ray at 1.2.3.4:5 cannot be joined: it timed out", 1),
    ],
)
def test_no_ray(monkeypatch: pytest.MonkeyPatch, address: str, problem: str, tries: int) -> None:
    starts = Starts(monkeypatch, failing=9)
    with pytest.raises(ConnectionError, match=problem), cluster.cluster(address, dashboard=False):
        pass
    assert len(starts.asked) == tries
