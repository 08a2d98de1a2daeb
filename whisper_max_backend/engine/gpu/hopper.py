"""Whether a GPU does rightly what Hopper alone can: asked of the card itself.

Its products, and kernels that begin before the ones before them have ended, would give wrong text
without any error where they are wrong. So whenever a model is loaded, the card has to show that
both give what the kernels for older cards give.
"""

from __future__ import annotations

import logging

import numpy as np
from max.driver import Device
from max.dtype import DType
from max.graph import DeviceRef, Module, TensorValue

from ..compile.artifacts import ArtifactSpec, compiled
from ..compile.session import LoadedGraph, Session
from ..graphs.ops import new_graph
from ..state.device_locks import locks_of
from .graphs.layers import Layers
from .weights import on_device

SHAPES = ((1500, 384, 2816), (200, 328, 270))
"""Rows, depth and columns: tiles of both widths, and parts of them in every direction."""
TOLERANCE = 1e-4
"""Of sums, relative to the largest: tensor cores add in an order and a precision of their own."""
WIDTH, ROWS = 512, 5
"""Of a chain of few-row kernels, each of which needs what the one before it wrote."""
CHAIN = 16
REPEATS = 8

_log = logging.getLogger("whisper_max_backend")


def is_hopper(device: Device, dtype: DType) -> bool:
    """Whether a device is of NVIDIA's Hopper generation, whose tensor cores multiply `dtype`."""
    known = device.api == "cuda" and device.architecture_name in {"sm_90", "sm_90a"}
    return known and dtype != DType.float32


def uses_hopper(device: Device, dtype: DType, session: Session) -> bool:
    """Whether a device runs the kernels of `dtype` that are Hopper's own; logs where it fails."""
    if not is_hopper(device, dtype):
        return False
    graphs = session.init_all(compiled(**proof_artifact(device, dtype, session)))
    with locks_of(device).beside:
        if not products_agree(graphs["products"], device, dtype):
            fault = "multiplies wrongly with warpgroups"
        elif not chains_agree(graphs["chains"], device, dtype):
            fault = "begins kernels too early"
        else:
            return True
    _log.warning(
        "%s %s; the slower kernels of older GPUs are used. Another driver may mend this.",
        *(device, fault),
    )
    return False


def products_agree(graph: LoadedGraph, device: Device, dtype: DType) -> bool:
    """Whether both kinds of products have the same results, on random numbers."""
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


def chains_agree(graph: LoadedGraph, device: Device, dtype: DType) -> bool:
    """Whether kernels that begin early give the very numbers of those that do not."""
    random = np.random.default_rng(0)
    for _ in range(REPEATS):
        stream, vector, weight = (
            on_device(random.standard_normal(shape, np.float32) * scale, kind, device)
            for shape, scale, kind in (
                ((1, ROWS, WIDTH), 1, DType.float32),
                ((WIDTH,), 1, DType.float32),
                ((WIDTH, WIDTH), WIDTH**-0.5, dtype),
            )
        )
        known, early = (each.to_numpy() for each in graph.execute(stream, vector, weight))
        if not (np.isfinite(known).all() and np.array_equal(known, early)):
            return False
    return True


def proof_artifact(device: Device, dtype: DType, session: Session) -> ArtifactSpec:
    """What `compiled` is to compile: products and chains, for older GPUs and for Hopper."""

    def build() -> Module:
        module = Module()
        place = DeviceRef.from_device(device)
        many, few = (
            [Layers(place, device.api, dtype, few=few, hopper=which) for which in (False, True)]
            for few in (False, True)
        )
        inputs = [many[0].tensor("items", "rows", "depth"), many[0].tensor("columns", "depth")]
        with new_graph("products", inputs, module) as graph:
            x, weight = (value.tensor for value in graph.inputs)
            graph.output(*(kind.logits(x, weight) for kind in many))
        kind = few[0]
        vector, matrix = kind.floats(WIDTH), kind.tensor(WIDTH, WIDTH)
        with new_graph("chains", [kind.floats(1, "rows", WIDTH), vector, matrix], module) as graph:
            graph.output(*(_chain(kind, *(each.tensor for each in graph.inputs)) for kind in few))
        return module

    return {
        "name": f"hopper-proof-{device.api}-{dtype.name}",
        "build": build,
        "key": {"dtype": dtype.name},
        "session": session,
        "about_seconds": 30,
    }


def _chain(
    layers: Layers, stream: TensorValue, vector: TensorValue, weight: TensorValue
) -> TensorValue:
    for _ in range(CHAIN):
        made = layers.normed_linear(stream, vector, vector, weight, vector)
        stream = layers.added(stream, made, weight, vector)
    return stream
