"""``python -m compat_tests.support.ptx.compile sm_90``: the products on tensor cores, as PTX.

The PTX of each kernel stays in the folder that MODULAR_CACHE_DIR names.
"""

from __future__ import annotations

import os
import sys

from max import driver
from max.dtype import DType
from max.graph import DeviceRef, Module

from whisper_max_backend.engine.compile.artifacts import kernels_path
from whisper_max_backend.engine.compile.cpu_target import apply_cpu_target
from whisper_max_backend.engine.compile.session import Session
from whisper_max_backend.engine.gpu.graphs.layers import Layers
from whisper_max_backend.engine.gpu.prebuild import pretend_gpu
from whisper_max_backend.engine.graphs.ops import new_graph

WIDTH = 328
"""Of the rows that are normalised: a multiple of a load, but not of what a warp takes at once."""


def build(device: DeviceRef, api: str, dtype: DType) -> Module:
    """A graph for each epilogue of the products; other sizes than `WIDTH` are told at run time."""
    module = Module()
    ampere, hopper = (Layers(device, api, dtype, hopper=which) for which in (False, True))
    few = Layers(device, api, dtype, few=True)
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
    with new_graph("normed", [stream, bias, bias, weight, bias], module) as graph:
        graph.output(few.normed_linear(*(value.tensor for value in graph.inputs)))
    return module


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
