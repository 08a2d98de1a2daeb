"""The graphs that serve every model: log-mel features, and the packing of weights."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from max.driver import CPU
from max.engine import InferenceSession, Model
from max.graph import DeviceRef, Module

from .artifacts import compiled
from .graphs.log_mel import add_log_mel
from .graphs.packing import add_packing


@functools.cache
def shared_models() -> Mapping[str, Model]:
    """``log_mel`` and the ``pack_*`` graphs, on the CPU."""
    session = InferenceSession(devices=[CPU()])
    artifact = compiled("shared", _build, key={}, session=session, about_seconds=30)
    models: Mapping[str, Model] = session.init_all(artifact)
    return models


def _build() -> Module:
    module = Module()
    device = DeviceRef.CPU()
    add_log_mel(module, device)
    add_packing(module, device)
    return module
