"""Graphs that serve every model: log-mel features, packing of weights, dynamic time warping."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from max.driver import CPU

from ...system.max_background_thread import background_thread_yields
from ..compile.artifacts import ArtifactSpec, compiled
from ..compile.session import LoadedGraph, Session
from .graphs.signatures import DTW

if TYPE_CHECKING:
    from max.graph import Module


@functools.cache
def common_graphs() -> Mapping[str, LoadedGraph]:
    """``log_mel``, ``dtw`` and the ``pack_*`` graphs, on the CPU."""
    session = Session([CPU()])
    models: Mapping[str, LoadedGraph] = session.init_all(compiled(**common_artifact(session)))
    with background_thread_yields():
        # Every model needs the shared ones: what is run here first is the process's first.
        inputs = DTW.ordered(
            sums=np.ones((1, 1, 1), np.float32),
            matrices=np.array([[0, 1, 1]], np.int32),
            head_count=np.ones(1, np.float32),
            threads=np.ones(1, np.int32),
        )
        models["dtw"].execute(*inputs)
    return models


def common_artifact(session: Session) -> ArtifactSpec:
    """What `compiled` is to compile."""
    return {
        "name": "shared",
        "build": _build,
        "key": {},
        "session": session,
        "about_seconds": 30,
    }


def _build() -> Module:
    from max.graph import DeviceRef, Module

    from ..graphs.log_mel import add_log_mel
    from .graphs.dtw import add_dtw
    from .graphs.packing import add_packing

    module = Module()
    device = DeviceRef.CPU()
    add_log_mel(module, device)
    add_packing(module, device)
    add_dtw(module, device)
    return module
