"""A model of a GPU's graphs that captures and replays them, on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from max.driver import CPU, Buffer

from whisper_max_backend.engine.checkpoint.load import Checkpoint
from whisper_max_backend.engine.cpu.model import CPUModel
from whisper_max_backend.engine.gpu.model import GPUModel


class OnDevice:
    """An output in a device's memory: the host gets copies of it."""

    def __init__(self, output: Buffer) -> None:
        self.array = output.to_numpy().copy()
        self.shape = self.array.shape

    def to_numpy(self) -> np.ndarray:
        return self.array.copy()

    def copy(self) -> Buffer:
        return Buffer.from_numpy(self.array.copy())


class CapturingGraph:
    """A compiled graph, captured and replayed as a GPU would, by executing it."""

    def __init__(self, model: Any) -> None:
        self.execute = model.execute
        self.graphs: dict[int, tuple[tuple[Buffer, ...], list[OnDevice]]] = {}
        self.replays = 0

    def capture(self, number: int, *inputs: Buffer) -> list[OnDevice]:
        outputs = [OnDevice(one) for one in self.execute(*inputs)]
        self.graphs[number] = inputs, outputs
        return outputs

    def debug_verify_replay(self, number: int, *inputs: Buffer) -> None:
        assert number in self.graphs

    def replay(self, number: int, *inputs: Buffer) -> None:
        captured, outputs = self.graphs[number]
        assert all(one is other for one, other in zip(captured, inputs, strict=True))
        # A device does one thing after another; the CPU copies the inputs meanwhile.
        captured[0].device.synchronize()
        for output, result in zip(outputs, self.execute(*captured), strict=True):
            output.array[:] = result.to_numpy()
        self.replays += 1

    def release_captured_graph(self, number: int) -> None:
        del self.graphs[number]


class ReadingGraph:
    """A compiled graph that reads what a replay has left in the device's memory."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def execute(self, *inputs: Buffer | OnDevice) -> list[Buffer]:
        results: list[Buffer] = self._model.execute(
            *(Buffer.from_numpy(x.to_numpy()) if isinstance(x, OnDevice) else x for x in inputs)
        )
        return results


def capturing_model(checkpoint: Checkpoint) -> GPUModel:
    """With windows, prompts and steps that are replayed."""
    model = GPUModel(checkpoint, CPU(), "float32")
    decoder: Any = model.decoder
    names = ("encode", "prefill", "step", "step_few")
    captured: Any = {name: CapturingGraph(model._graphs[name]) for name in names}
    readers = {name: ReadingGraph(model._graphs[name]) for name in ("advance", "attended")}
    model._graphs.update(captured)
    decoder._graphs = {**decoder._graphs, **captured, **readers}
    decoder._ahead._graph = readers["advance"]
    for one in (model._captured, decoder._captured_prefills, decoder.captured_graphs):
        one.wanted = True
    return model


MODELS: dict[str, Callable[[Checkpoint], CPUModel | GPUModel]] = {
    "gpu graphs": lambda checkpoint: GPUModel(checkpoint, CPU(), "float32"),
    "gpu graphs, replayed": capturing_model,
    "cpu": lambda checkpoint: CPUModel(checkpoint, compute_type="float32"),
    "cpu, int8": lambda checkpoint: CPUModel(checkpoint, compute_type="int8_float32"),
}
