"""What graphs hand to their kernels is what these take: names, types and order."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest
from max.dtype import DType
from max.graph import BufferValue, DeviceRef, Module, TensorType

from whisper_max_backend.engine.checkpoint.dimensions import Dimensions
from whisper_max_backend.engine.compile.artifacts import kernel_sources
from whisper_max_backend.engine.cpu.graphs.dtw import add_dtw
from whisper_max_backend.engine.cpu.graphs.kernels import CPUKernels
from whisper_max_backend.engine.cpu.graphs.module import build_module
from whisper_max_backend.engine.cpu.graphs.packing import add_packing
from whisper_max_backend.engine.cpu.graphs.signatures import PREFILL, STEP
from whisper_max_backend.engine.cpu.prebuild import storages
from whisper_max_backend.engine.gpu.graphs import module as gpu
from whisper_max_backend.engine.gpu.graphs.layers import Layers
from whisper_max_backend.engine.gpu.graphs.signatures import Signatures
from whisper_max_backend.engine.graphs.ops import Values

KERNEL = re.compile(
    r'register\("whisper\.([\w.]+)"\).*?\bdef execute\[[^]]*\]\s*\(\n(.*?)\n    \) raises',
    re.DOTALL,
)
TENSOR = re.compile(r"(\w+): (\w+)Tensor\[dtype=(?:DType\.)?(\w+), rank=(\d)")

GPU_DIMENSIONS = Dimensions(80, 1500, 128, 2, 2, 2000, 448, 128, 2, 2)

# Name, "Output", "Input" or "MutableInput", type and rank.
Tensor = tuple[str, str, str, int]
Calls = list[tuple[str, list[Tensor]]]


def declared() -> dict[str, list[Tensor]]:
    """The tensors of every kernel, as its source names them."""
    return {
        name: [(word, kind, dtype, int(rank)) for word, kind, dtype, rank in TENSOR.findall(text)]
        for source in kernel_sources().rglob("*.mojo")
        for name, text in KERNEL.findall(source.read_text())
    }


def handed(inputs: Values, results: Sequence[TensorType]) -> list[Tensor]:
    """What a graph hands to a kernel, but numbers; the results have names in its source alone."""
    tensors = [("", "Output", result.dtype.name, result.rank) for result in results]
    for word, value in inputs.items():
        kind = "MutableInput" if isinstance(value, BufferValue) else "Input"
        if value.rank > 0:
            tensors.append((word, kind, value.dtype.name, value.rank))
    return tensors


def assert_as_declared(calls: Calls) -> None:
    """A type that is a parameter of a kernel is the same in all tensors of a call."""
    kernels = declared()
    for name, tensors in calls:
        types = {"INT8": "int8"}
        for (_, _, dtype, _), (_, _, given, _) in zip(kernels[name], tensors, strict=False):
            types.setdefault(dtype, dtype if dtype in DType.__members__ else given)
        expected = [
            ("" if kind == "Output" else word, kind, types.get(dtype, dtype), rank)
            for word, kind, dtype, rank in kernels[name]
        ]
        assert tensors == expected, name


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """The kernels that graphs call from now on, with what they hand to them."""
    calls: Calls = []
    call, gpu_call = CPUKernels.call, Layers.kernel

    def recorded(
        self: CPUKernels, name: str, inputs: Values, results: Sequence[TensorType], *rest: Any
    ) -> Any:
        calls.append((name, handed({**inputs, "threads": self.threads}, results)))
        return call(self, name, inputs, results, *rest)

    def recorded_on_gpu(
        self: Layers, name: str, inputs: Values, results: Sequence[TensorType], **parameters: Any
    ) -> Any:
        calls.append((f"gpu.{name}", handed(inputs, results)))
        return gpu_call(self, name, inputs, results, **parameters)

    monkeypatch.setattr(CPUKernels, "call", recorded)
    monkeypatch.setattr(Layers, "kernel", recorded_on_gpu)
    return calls


def test_kernels_get_what_they_name(called: Calls) -> None:
    """In all graphs of a CPU."""
    device, module = DeviceRef.CPU(), Module()
    build_module(device, storages()[0])
    add_packing(module, device)
    add_dtw(module, device)
    assert_as_declared(called)
    assert {name for name, _ in called} >= {"encoder", "cross_kv", "decoder", "step"}


@pytest.mark.parametrize(("storage", "own"), [(DType.float16, ""), (DType.int8, "_int8")])
def test_gpu_kernels_get_what_they_name(storage: DType, own: str, called: Calls) -> None:
    """In all graphs of a GPU, with the kernels that are for tensor cores."""
    gpu.build_module(DeviceRef.CPU(), "cuda", DType.float16, storage, GPU_DIMENSIONS)
    assert_as_declared(called)
    products = {f"{name}{own}" for name in ("embed", "linear_added", "linear_normed", "logits")}
    others = {
        "add_positions",
        "alignment_weights",
        "cast",
        "choose",
        "cross_attention",
        "im2col",
        "linear",
        "norm",
        "probabilities",
        "self_attention",
        "store_cross_kv",
    }
    assert {name for name, _ in called} >= {f"gpu.{name}" for name in products | others}


@pytest.mark.parametrize("storage", [DType.float16, DType.int8])
def test_every_input_has_a_name_of_its_own(storage: DType) -> None:
    """Those that are parts of one weight, and the scales of int8, too."""
    for graph, signature in vars(Signatures(GPU_DIMENSIONS, DType.float16, storage)).items():
        assert len(set(signature.names)) == len(signature.names), graph


def test_buffers_are_ordered_by_name() -> None:
    buffers = {name: number for number, name in enumerate(STEP.names)}
    shuffled = dict(sorted(buffers.items()))
    assert STEP.ordered(**shuffled) == list(range(len(buffers)))


def test_missing_and_unknown_buffers_are_told() -> None:
    buffers = dict.fromkeys(PREFILL.names, 0)
    del buffers["slot_table"]
    with pytest.raises(TypeError, match=r"\['slot_table'\]"):
        PREFILL.ordered(**buffers)
    with pytest.raises(TypeError, match=r"\['seed', 'slot_table'\]"):
        PREFILL.ordered(**buffers, seed=0)
