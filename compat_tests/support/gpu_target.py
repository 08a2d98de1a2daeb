"""``python -m compat_tests.support.gpu_target sm_89 int8``: compiles for a GPU that is not there.

MAX takes a pretended GPU for real from the start of a process only, so tests run this beside them.
What is made of MAX's own products and attention is left out, for it takes minutes to compile:
``python -m benchmarks gpu --target`` compiles everything.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from max import driver
from max.dtype import DType
from max.graph import DeviceRef, Module

from whisper_max_backend.engine.checkpoint.dimensions import Dimensions
from whisper_max_backend.engine.compile.artifacts import kernels_path
from whisper_max_backend.engine.compile.cpu_target import apply_cpu_target
from whisper_max_backend.engine.compile.session import Session
from whisper_max_backend.engine.gpu.graphs.decoder import DecoderGraphs
from whisper_max_backend.engine.gpu.graphs.module import build_module
from whisper_max_backend.engine.gpu.prebuild import pretend_gpu
from whisper_max_backend.engine.gpu.proofs import newest, proof_module
from whisper_max_backend.engine.graphs.log_mel import add_log_mel

DIMENSIONS = Dimensions(80, 1500, 128, 2, 1, 2000, 448, 128, 2, 1)


def steps(device: DeviceRef, api: str, kept: Sequence[DType]) -> Module:
    """A decoder step of each type of weights, probabilities and log-mel features."""
    module = Module()
    for storage in kept:
        decoder = DecoderGraphs(module, device, api, DType.bfloat16, storage, DIMENSIONS)
        decoder.add_step(f"step_few_{storage.name}", decoder.few)
    decoder.add_probabilities()
    add_log_mel(module, device)
    return module


def main(target: str, *kept: str) -> None:
    """Compiles for `target`, and tells what was compiled.

    It is steps with weights of some types, or where none is named, what the GPU has to prove.
    """
    pretend_gpu(target)
    apply_cpu_target()
    gpu = driver.Accelerator()
    session = Session([gpu])
    device = DeviceRef.from_device(gpu)
    for dtype in (DType.float32, DType.float16, DType.bfloat16):
        for storage in (dtype, DType.int8):  # all graphs can be made, at least
            build_module(device, gpu.api, dtype, storage, DIMENSIONS)
    if kept:
        module = steps(device, gpu.api, [DType[name] for name in kept])
    else:
        module = proof_module(device, gpu.api, DType.bfloat16, newest(gpu, DType.bfloat16))
    compiled = session.compile(module, custom_extensions=[kernels_path()])
    print(" ".join(sorted(session.init_all(compiled))), flush=True)
    os._exit(0)  # MAX's compiler threads now and then abort a process that ends the usual way


if __name__ == "__main__":
    main(*sys.argv[1:])
