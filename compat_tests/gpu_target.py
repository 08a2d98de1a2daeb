"""``python -m compat_tests.gpu_target sm_90``: compiles the graphs of a GPU that is not there.

MAX takes a pretended GPU for real from the start of a process only, so tests run this beside them.
Products of matrices are left out: MAX's take minutes to compile, and are MAX's own to test.
"""

from __future__ import annotations

import sys

from max import driver
from max.dtype import DType
from max.engine import InferenceSession
from max.graph import DeviceRef, Module, TensorType

from whisper_max_backend.engine.artifacts import kernels_path
from whisper_max_backend.engine.checkpoint import Dimensions
from whisper_max_backend.engine.cpu_target import apply_cpu_target
from whisper_max_backend.engine.graphs.device.decoder import DecoderGraphs
from whisper_max_backend.engine.graphs.device.layers import Layers
from whisper_max_backend.engine.graphs.layers import new_graph
from whisper_max_backend.engine.graphs.log_mel import add_log_mel

DIMENSIONS = Dimensions(80, 1500, 128, 2, 1, 2000, 448, 128, 2, 1)


def build(device: DeviceRef, api: str) -> Module:
    """A decoder step, the attention of the encoder, and log-mel features."""
    dtype, d = DType.bfloat16, DIMENSIONS
    module = Module()
    decoder = DecoderGraphs(module, device, api, dtype, d)
    decoder.add_step("step_few", decoder.few)
    decoder.add_probabilities()
    add_log_mel(module, device)
    layers = Layers(device, api, dtype)
    if layers.flash:
        kind = TensorType(dtype, ["batch", "frames", d.n_audio_state], device)
        with new_graph("attention", [kind] * 3, module) as graph:
            states = (value.tensor for value in graph.inputs)
            graph.output(layers.attention(*states, d.n_audio_head))
    return module


def main(target: str) -> None:
    """Compiles for `target`, and tells what was compiled."""
    driver.set_virtual_device_count(1)
    driver.set_virtual_device_api("hip" if target.startswith("gfx") else "cuda")
    driver.set_virtual_device_target_arch(target)
    apply_cpu_target()
    gpu = driver.Accelerator()
    session = InferenceSession(devices=[gpu])
    module = build(DeviceRef.from_device(gpu), gpu.api)
    compiled = session.compile(module, custom_extensions=[kernels_path()])
    print(" ".join(sorted(session.init_all(compiled))))


if __name__ == "__main__":
    main(sys.argv[1])
