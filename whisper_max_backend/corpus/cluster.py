"""Ray: started on this machine or joined, and what an actor gets of it."""

from __future__ import annotations

import contextlib
import logging
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ray

from .environment import LOCAL

_OBJECTS = 100 << 20  # bytes for Ray's object store, which holds no audio and no text
_STARTS = 3  # of a Ray of one's own, at most
_QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.WARNING}
_THREADS_ON_CPU, _THREADS_ON_GPU = 4, 64
"""Shards at one actor at the same time, at most. Each thread that has had one keeps a megabyte."""
_LONGEST = 24  # bytes of a temporary folder's path; Ray's sockets are below it


@contextlib.contextmanager
def cluster(address: str, dashboard: bool) -> Iterator[None]:
    """Ray, for the time of a run, after `environment.prepare`.

    Args:
        address: "local" starts it, on the loopback interface only, and ends it; else of one that
            runs, or "auto" for the one on this machine.
        dashboard: Whether one that is started has its dashboard, at http://127.0.0.1:8265.

    Raises:
        ConnectionError: Ray cannot be started, or there is none at the address.
    """
    if address != LOCAL:
        try:
            ray.init(address=address, **_QUIET)
        except Exception as error:  # Ray has no narrower one
            raise ConnectionError(f"Ray at {address} cannot be joined: {error}") from error
        try:
            yield
        finally:
            ray.shutdown()
        return
    parent = tempfile.gettempdir()
    folder = tempfile.mkdtemp(prefix="ray-", dir=parent if len(parent) < _LONGEST else "/tmp")
    try:
        _start(folder, dashboard)
        yield
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def _start(folder: str, dashboard: bool) -> None:
    """Ray on this machine, which has half a minute to start: a busy one may need a second try."""
    for attempt in range(_STARTS):
        try:
            ray.init(
                address=LOCAL,
                include_dashboard=dashboard,
                dashboard_host="127.0.0.1",
                object_store_memory=_OBJECTS,
                _node_ip_address="127.0.0.1",
                _temp_dir=f"{folder}/{attempt}",
                **_QUIET,
            )
            return
        except Exception as error:  # Ray has no narrower one
            ray.shutdown()
            if attempt + 1 == _STARTS:
                raise ConnectionError(f"Ray cannot be started here: {error}") from error


@dataclass(frozen=True)
class Actors:
    """What an actor gets, and how many there are.

    Attributes:
        cpus: Cores of each.
        gpus: GPUs of each; less than 1 is a part of one.
        most: How many; None for as many as Ray has room for, also when machines come or go.
    """

    cpus: int
    gpus: float
    most: int | None = None

    def number(self) -> int:
        """How many there should be now."""
        if self.most is not None:
            return self.most
        number = 0
        for node in _nodes():
            places = node.get("CPU", 0) // self.cpus
            if self.gpus:
                places = min(places, node.get("GPU", 0) / self.gpus)
            number += int(places)
        return number

    @property
    def options(self) -> dict[str, Any]:
        """Of an actor of Ray."""
        return {
            "num_cpus": self.cpus,
            "num_gpus": self.gpus,
            "max_restarts": 0,
            "max_concurrency": _THREADS_ON_GPU if self.gpus else _THREADS_ON_CPU,
            "scheduling_strategy": "SPREAD",
        }


def actors(threads: int | None, gpus: float | None, device: str, most: int | None) -> Actors:
    """What each actor gets, of what Ray has.

    Args:
        threads: Cores of each; if not given, all of the smallest machine that has any, or one
            beside a GPU.
        gpus: GPUs of each; if not given, one where there are any and the device is not "cpu".
        device: As for `load_model`.
        most: How many actors.

    Raises:
        ValueError: Ray has no machine with as much.
    """
    nodes = _nodes()
    have = max((node.get("GPU", 0) for node in nodes), default=0)
    if gpus is None:
        gpus = 1 if have and device != "cpu" else 0
    cores = [int(node["CPU"]) for node in nodes if node.get("CPU", 0) >= 1]
    if not threads:
        threads = 1 if gpus else min(cores, default=1)
    found = Actors(threads, gpus, most)
    if most is None and not found.number():
        raise ValueError(
            f"Ray has no machine with {threads} cores and {gpus:g} GPUs: ask for less with "
            "--threads and --gpus, or say how many actors there will be room for with --actors"
        )
    return found


def _nodes() -> list[dict[str, float]]:
    """The resources of each machine that is alive."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node["Resources"] for node in nodes if node["Alive"]]
