"""What graphs hand to the kernels of a CPU is what these take: names, types and order."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest
from max.graph import BufferValue, DeviceRef, Module, TensorType

from whisper_max_backend.engine.compile.artifacts import kernel_sources
from whisper_max_backend.engine.cpu.graphs.dtw import add_time_warping
from whisper_max_backend.engine.cpu.graphs.module import build_module
from whisper_max_backend.engine.cpu.graphs.packing import add_packing
from whisper_max_backend.engine.cpu.graphs.signatures import PREFILL, STEP
from whisper_max_backend.engine.cpu.prebuild import storages
from whisper_max_backend.engine.graphs.ops import Kernels, Values

KERNEL = re.compile(
    r'register\("whisper\.(\w+)"\).*?\bdef execute\[[^]]*\]\s*\(\n(.*?)\n    \) raises', re.DOTALL
)
TENSOR = re.compile(r"(\w+): (\w+)Tensor\[dtype=DType\.(\w+), rank=(\d)")

# Name, "Output", "Input" or "MutableInput", type and rank.
Tensor = tuple[str, str, str, int]


def declared() -> dict[str, list[Tensor]]:
    """The tensors of every kernel, as its source names them."""
    return {
        name: [(word, kind, dtype, int(rank)) for word, kind, dtype, rank in TENSOR.findall(text)]
        for source in (kernel_sources() / "cpu").rglob("*.mojo")
        for name, text in KERNEL.findall(source.read_text())
    }


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[Tensor]]]:
    """The kernels that graphs call from now on, with what they hand to them."""
    calls: list[tuple[str, list[Tensor]]] = []
    call = Kernels.call

    def recorded(
        self: Kernels, name: str, inputs: Values, results: Sequence[TensorType], *rest: Any
    ) -> Any:
        tensors = [("", "Output", result.dtype.name, result.rank) for result in results]
        for word, value in {**inputs, "threads": self.threads}.items():
            kind = "MutableInput" if isinstance(value, BufferValue) else "Input"
            tensors.append((word, kind, value.dtype.name, value.rank))
        calls.append((name, tensors))
        return call(self, name, inputs, results, *rest)

    monkeypatch.setattr(Kernels, "call", recorded)
    return calls


def test_kernels_get_what_they_name(called: list[tuple[str, list[Tensor]]]) -> None:
    """In all graphs; the results of a kernel have names in its source alone."""
    device, module = DeviceRef.CPU(), Module()
    build_module(device, storages()[0])
    add_packing(module, device)
    add_time_warping(module, device)
    kernels = declared()
    for name, tensors in called:
        expected = [
            ("" if kind == "Output" else word, kind, dtype, rank)
            for word, kind, dtype, rank in kernels[name]
        ]
        assert tensors == expected, name
    assert {name for name, _ in called} >= {"encoder", "cross_kv", "decoder", "step"}


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
