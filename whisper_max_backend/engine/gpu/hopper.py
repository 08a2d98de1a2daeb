"""Whether a GPU makes its products as Hopper alone can: asked of the card itself.

A wrong product would give wrong text without any error. So whenever a model is loaded, the card
has to show that its products equal those of the kernels for older cards.
"""

from __future__ import annotations

import logging

import numpy as np
from max.driver import Device
from max.dtype import DType
from max.graph import DeviceRef, Module

from ..compile.artifacts import ArtifactSpec, compiled
from ..compile.session import Session
from ..graphs.ops import new_graph
from .graphs.layers import Layers
from .weights import on_device

SHAPES = ((1500, 384, 2816), (200, 328, 270))
"""Rows, depth and columns: tiles of both widths, and parts of them in every direction."""
TOLERANCE = 1e-4
"""Of sums, relative to the largest: tensor cores add in an order and a precision of their own."""

_log = logging.getLogger("whisper_max_backend")


def is_hopper(device: Device, dtype: DType) -> bool:
    """Whether a device is of NVIDIA's Hopper generation, whose tensor cores multiply `dtype`."""
    known = device.api == "cuda" and device.architecture_name in {"sm_90", "sm_90a"}
    return known and dtype != DType.float32


def uses_hopper(device: Device, dtype: DType, session: Session) -> bool:
    """Whether products of `dtype` are Hopper's own on a device; logs where they are wrong there."""
    if not is_hopper(device, dtype):
        return False
    if products_agree(device, dtype, session):
        return True
    _log.warning(
        "%s multiplies wrongly with warpgroups; the slower products of older GPUs are used. "
        "Another driver may mend this.",
        device,
    )
    return False


def products_agree(device: Device, dtype: DType, session: Session) -> bool:
    """Whether both kinds of products have the same results, on random numbers."""
    graph = session.init_all(compiled(**products_artifact(device, dtype, session)))["products"]
    random = np.random.default_rng(0)
    for rows, depth, columns in SHAPES:
        x, weight = (
            on_device(random.standard_normal(shape, np.float32), dtype, device)
            for shape in ((1, rows, depth), (columns, depth))
        )
        known, own = (each.to_numpy() for each in graph.execute(x, weight))
        if not np.abs(own - known).max() <= TOLERANCE * np.abs(known).max():  # also if it is NaN
            return False
    return True


def products_artifact(device: Device, dtype: DType, session: Session) -> ArtifactSpec:
    """What `compiled` is to compile: one product by the kernels for older GPUs and for Hopper."""

    def build() -> Module:
        module = Module()
        place = DeviceRef.from_device(device)
        kinds = [Layers(place, device.api, dtype, hopper=which) for which in (False, True)]
        inputs = [kinds[0].tensor("items", "rows", "depth"), kinds[0].tensor("columns", "depth")]
        with new_graph("products", inputs, module) as graph:
            x, weight = (value.tensor for value in graph.inputs)
            graph.output(*(kind.logits(x, weight) for kind in kinds))
        return module

    return {
        "name": f"hopper-products-{device.api}-{dtype.name}",
        "build": build,
        "key": {"dtype": dtype.name},
        "session": session,
        "about_seconds": 30,
    }
