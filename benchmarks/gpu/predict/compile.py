"""``python -m benchmarks.gpu.predict.compile sm_90 large-v3``: compiles where no GPU need be.

An encoder and a decoder step of one layer are compiled, for all layers have the same kernels. Their
machine code stays in the folder that MODULAR_CACHE_DIR names.
"""

from __future__ import annotations

import dataclasses
import os
import sys

from max import driver
from max.dtype import DType
from max.graph import DeviceRef, Module

from benchmarks.gpu.models import SIZES
from whisper_max_backend.engine.compile.artifacts import kernels_path
from whisper_max_backend.engine.compile.cpu_target import apply_cpu_target
from whisper_max_backend.engine.compile.session import Session
from whisper_max_backend.engine.gpu.graphs.decoder import DecoderGraphs
from whisper_max_backend.engine.gpu.graphs.encoder import add_encoder
from whisper_max_backend.engine.gpu.graphs.layers import Layers
from whisper_max_backend.engine.gpu.graphs.signatures import Signatures
from whisper_max_backend.engine.gpu.prebuild import pretend_gpu
from whisper_max_backend.engine.gpu.proofs import newest


def main(target: str, size: str) -> None:
    """Compiles for `target` what a model of a size needs."""
    pretend_gpu(target)
    apply_cpu_target()
    gpu = driver.Accelerator()
    device, dtype = DeviceRef.from_device(gpu), DType.bfloat16
    d = dataclasses.replace(SIZES[size], n_audio_layer=1, n_text_layer=1)
    module = Module()
    encode = Signatures(d, dtype, dtype).encode
    generation = newest(gpu, dtype)
    add_encoder(module, Layers(device, gpu.api, dtype, generation=generation), d, encode)
    decoder = DecoderGraphs(module, device, gpu.api, dtype, dtype, d, generation)
    decoder.add_step("step", decoder.many)
    decoder.add_step("step_few", decoder.few)
    Session([gpu]).compile(module, custom_extensions=[kernels_path()])
    os._exit(0)  # MAX's compiler threads now and then abort a process that ends the usual way


if __name__ == "__main__":
    main(*sys.argv[1:])
