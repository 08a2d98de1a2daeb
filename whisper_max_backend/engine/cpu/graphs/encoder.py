"""The audio encoder, and the cross-attention keys and values that the decoder keeps of a window."""

from __future__ import annotations

from max.dtype import DType
from max.graph import DeviceRef, Module

from ...graphs.ops import new_graph
from .kernels import CPUKernels
from .signatures import CROSS_KV, ENCODE


def add_encoder(module: Module, device: DeviceRef, storage: DType) -> None:
    """Adds the graph ``encode``, which gives ``states [batch, states, width]``.

    The matrices of its weights are of the type `storage`.
    """
    with new_graph("encode", ENCODE.types(device), module) as graph:
        kernels = CPUKernels(graph, device)
        states = kernels.floats("batch", "states", "width")
        values = ENCODE.values(graph)
        graph.output(*kernels.call("encoder", values, [states], {"storage": storage}))


def add_cross_kv(module: Module, device: DeviceRef, storage: DType, kv_type: DType) -> None:
    """Adds the graph ``cross_kv``, which writes a window's keys and values in `kv_type` once."""
    with new_graph("cross_kv", CROSS_KV.types(device), module) as graph:
        CPUKernels(graph, device).call(
            "cross_kv",
            CROSS_KV.values(graph),
            [],
            {"storage": storage, "kv_type": kv_type},
        )
        graph.output()
