"""The graphs that serve every model: log-mel features, packing of weights, time warping."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from max.driver import CPU
from max.engine import InferenceSession, Model
from max.graph import DeviceRef, Module

from .artifacts import CompiledArguments, compiled
from .graphs.alignment import add_time_warping
from .graphs.log_mel import add_log_mel
from .graphs.packing import add_packing


@functools.cache
def shared_models() -> Mapping[str, Model]:
    """``log_mel``, ``time_warping`` and the ``pack_*`` graphs, on the CPU."""
    session = InferenceSession(devices=[CPU()])
    models: Mapping[str, Model] = session.init_all(compiled(**shared_artifact(session)))
    return models


def shared_artifact(session: InferenceSession) -> CompiledArguments:
    """What `compiled` is to compile."""
    return {
        "name": "shared",
        "build": _build,
        "key": {},
        "session": session,
        "about_seconds": 30,
    }


def _build() -> Module:
    module = Module()
    device = DeviceRef.CPU()
    add_log_mel(module, device)
    add_packing(module, device)
    add_time_warping(module, device)
    return module
