"""``python -m compat_tests.support.ptx.compile sm_90``: what tensor cores multiply, as PTX.

The PTX of each kernel stays in the folder that MODULAR_CACHE_DIR names.
"""

from __future__ import annotations

import os
import sys

from max import driver
from max.dtype import DType
from max.graph import BufferType, DeviceRef, Module, TensorType, ops

from whisper_max_backend.engine.compile.artifacts import kernels_path
from whisper_max_backend.engine.compile.cpu_target import apply_cpu_target
from whisper_max_backend.engine.compile.session import Session
from whisper_max_backend.engine.gpu.graphs.layers import AMPERE, HOPPER, Layers
from whisper_max_backend.engine.gpu.prebuild import pretend_gpu
from whisper_max_backend.engine.graphs.ops import new_graph

WIDTH = 328
"""Of the rows that are normalised: a multiple of a load, but not of what a warp takes at once."""
HEADS, HEAD_SIZE = 2, 64
CONTEXT, FRAMES, SPLITS = 300, 300, 2
"""Of attention: histories, frames of a window, and how many parts of them are worked on at once."""


def build(device: DeviceRef, api: str, dtype: DType) -> Module:
    """A graph for each epilogue of the products; other sizes than `WIDTH` are told at run time."""
    module = Module()
    ampere, hopper = (Layers(device, api, dtype, generation=which) for which in (AMPERE, HOPPER))
    few, early = (Layers(device, api, dtype, True, which) for which in (AMPERE, HOPPER))
    states, stream = few.tensor("items", "rows", WIDTH), few.floats("items", "rows", WIDTH)
    weight, bias = few.tensor(WIDTH, WIDTH), few.floats(WIDTH)
    for name, many in (("ampere", ampere), ("hopper", hopper)):
        for activate in (False, True):
            kind = f"{name}_{'gelu' if activate else 'linear'}"
            with new_graph(kind, [states, weight, bias], module) as graph:
                values = [value.tensor for value in graph.inputs]
                graph.output(many.linear(*values, activate=activate))
        with new_graph(f"{name}_added", [stream, states, weight, bias], module) as graph:
            graph.output(many.added(*(value.tensor for value in graph.inputs)))
    for layers in (few, early):
        suffix = "_early" if layers.early else ""
        with new_graph(f"normed{suffix}", [stream, bias, bias, weight, bias], module) as graph:
            graph.output(layers.normed_linear(*(value.tensor for value in graph.inputs)))
        with new_graph(f"added{suffix}", [stream, states, weight, bias], module) as graph:
            graph.output(layers.added(*(value.tensor for value in graph.inputs)))
    for group in (1, 8):
        _add_attention(module, early, group)
    return module


def _add_attention(module: Module, few: Layers, group: int) -> None:
    """Graphs of the decoder's attention of up to `group` queries."""
    width = HEADS * HEAD_SIZE
    common = {"tensor_cores": few.tensor_cores, "head_size": HEAD_SIZE, "group": group}
    common["early"] = few.early
    result = few.tensor("items", "queries", width)
    inputs: dict[str, TensorType | BufferType] = {
        "kv_cache": BufferType(few.dtype, [2, 2, "slots", CONTEXT, width], few.device),
        "qkv": few.tensor("items", "queries", 3 * width),
        "slot_table": few.integers("rows", CONTEXT),
        "positions": few.integers("rows"),
    }
    with new_graph(f"self_attention_{group}", list(inputs.values()), module) as graph:
        cache, *others = graph.inputs
        values = dict(zip(inputs, [cache.buffer, *(one.tensor for one in others)], strict=True))
        values["layer"] = ops.constant(1, DType.int32, DeviceRef.CPU())
        graph.output(*few.kernel("self_attention", values, [result], **common))
    inputs = {
        "queries": result,
        "cross_kv": few.tensor(2, "windows", "frames", 2 * width),
        "windows": few.integers("items"),
    }
    with new_graph(f"cross_attention_{group}", list(inputs.values()), module) as graph:
        values = {name: one.tensor for name, one in zip(inputs, graph.inputs, strict=True)}
        values["layer"] = ops.constant(1, DType.int32, DeviceRef.CPU())
        room = few.floats(SPLITS, "items", "queries", HEADS, HEAD_SIZE + 2)
        results = few.kernel("cross_attention", values, [result, room], **common, splits=SPLITS)
        graph.output(*results)


def main(target: str) -> None:
    """Compiles for `target`."""
    pretend_gpu(target)
    apply_cpu_target()
    gpu = driver.Accelerator()
    session = Session([gpu])
    # With it, MAX keeps PTX where else it keeps machine code.
    session._engine()._set_mojo_define("DUMP_GPU_ASM", os.devnull)
    module = build(DeviceRef.from_device(gpu), gpu.api, DType.bfloat16)
    session.compile(module, custom_extensions=[kernels_path()])
    os._exit(0)  # MAX's compiler threads now and then abort a process that ends the usual way


if __name__ == "__main__":
    main(sys.argv[1])
