"""Graphs whose kernels run on an emulated processor, in the place of compiled ones."""

from __future__ import annotations

import ctypes
import struct
import subprocess
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from max.driver import Buffer
from max.dtype import DType

from compat_tests.support import kernel_graph
from compat_tests.support.emulated.program import command_of, make_program
from compat_tests.support.emulated.tracing import Call, Kernel, Shape, TracedGraph, trace
from whisper_max_backend import feature_extractor
from whisper_max_backend.engine.compile import artifacts, cpu_target, session
from whisper_max_backend.engine.cpu import model_independent_graphs

_PACK = "whisper.pack_weights"


@dataclass(frozen=True)
class Source:
    """Memory that an array of a kernel has the address of."""

    argument: int
    place: int
    content: bytes


class Emulator:
    """A process of the other processor that has the kernels of a module."""

    def __init__(self, kernels: Sequence[Kernel], target: str, runtime: Path, folder: Path) -> None:
        self._numbers = {kernel: number for number, kernel in enumerate(kernels)}
        program = make_program(kernels, target, runtime, folder)
        self._process = subprocess.Popen(
            command_of(program, target, runtime), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.ran: set[Kernel] = set()

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.communicate()

    def run(
        self, kernel: Kernel, inputs: Sequence[np.ndarray], results: Sequence[np.ndarray]
    ) -> None:
        """Fills the results, and changes the inputs that the kernel changes."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        arrays = [*results, *inputs]
        header = [self._numbers[kernel], len(arrays)]
        for tensor, array in zip(kernel.arguments, arrays, strict=True):
            given, wanted = tensor.role != "Output", tensor.role != "Input"
            header += [array.ndim, *array.shape, array.nbytes, given, wanted]
        sources = _sources(kernel, inputs)
        self._process.stdin.write(struct.pack(f"<{len(header)}q", *header))
        for array in inputs:
            self._process.stdin.write(np.ascontiguousarray(array).tobytes())
        self._process.stdin.write(struct.pack("<q", len(sources)))
        for one in sources:
            self._process.stdin.write(
                struct.pack("<3q", one.argument, one.place, len(one.content)) + one.content
            )
        self._process.stdin.flush()
        for tensor, array in zip(kernel.arguments, arrays, strict=True):
            if tensor.role != "Input":
                content = self._process.stdout.read(array.nbytes)
                assert len(content) == array.nbytes, f"{kernel.name} ended: {self._process.poll()}"
                array[...] = np.frombuffer(content, array.dtype).reshape(array.shape)
        self.ran.add(kernel)


def _sources(kernel: Kernel, inputs: Sequence[np.ndarray]) -> list[Source]:
    """What the table of `PackWeights` has the addresses of (pack_weights.mojo)."""
    if kernel.name != _PACK:
        return []
    size = DType[dict(kernel.parameters)["dtype"]].size_in_bytes
    found = []
    for index, row in enumerate(inputs[1].tolist()):
        outputs, columns = row[4:]
        for place, count in enumerate((outputs * columns * size, 4 * outputs, 8 * columns)):
            content = ctypes.string_at(row[place], count)
            found.append(Source(1, index * len(row) + place, content))
    return found


class EmulatedGraph:
    """A traced graph, executed call by call; as `LoadedGraph` is used."""

    def __init__(self, graph: TracedGraph, emulator: Emulator) -> None:
        self._graph = graph
        self._emulator = emulator

    def execute(self, *inputs: Any) -> list[Buffer]:
        """The graph's results."""
        sizes: dict[str, int] = {}
        values: dict[Hashable, np.ndarray] = {}
        for (identity, shape), given in zip(self._graph.inputs, inputs, strict=True):
            # Of a buffer of the host the array is a view, so what a kernel changes is changed.
            array = given.to_numpy() if isinstance(given, Buffer) else np.asarray(given)
            values[identity] = array
            for name, size in zip(shape, array.shape, strict=True):
                sizes[name] = size
        for call in self._graph.calls:
            self._call(call, values, sizes)
        return [Buffer.from_numpy(values[identity]) for identity in self._graph.results]

    def _call(
        self, call: Call, values: dict[Hashable, np.ndarray], sizes: Mapping[str, int]
    ) -> None:
        results = [
            np.empty(_sized(shape, sizes), argument.dtype)
            for shape, argument in zip(call.shapes, call.kernel.arguments, strict=False)
        ]
        self._emulator.run(call.kernel, [values[one] for one in call.inputs], results)
        values.update(zip(call.results, results, strict=True))


def _sized(shape: Shape, sizes: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(
        sum(int(part) if part.isdecimal() else sizes[part] for part in dimension.split(" + "))
        for dimension in shape
    )


@contextmanager
def emulated(target: str, runtime: Path, folder: Path) -> Iterator[list[Emulator]]:
    """Everything that this process loads meanwhile has kernels of an emulated processor.

    Gives the processes, of which each module of graphs has one.
    """
    emulators: list[Emulator] = []
    kept: dict[str, dict[str, EmulatedGraph]] = {}

    def compiled(build: Callable[[], Any], _session: Any) -> dict[str, EmulatedGraph]:
        graphs = trace(build)
        kernels = list(dict.fromkeys(call.kernel for one in graphs.values() for call in one.calls))
        emulators.append(Emulator(kernels, target, runtime, folder))
        return {name: EmulatedGraph(graph, emulators[-1]) for name, graph in graphs.items()}

    def init_all(
        _session: Any, artifact: dict[str, EmulatedGraph], weights_registry: Any = None
    ) -> dict[str, EmulatedGraph]:
        return artifact

    caches = (
        model_independent_graphs.common_graphs,
        feature_extractor._kernel,
        kernel_graph._compiled_models,
    )
    with ExitStack() as patches:
        for place, name, value in (
            (artifacts, "_prebuilt", lambda file: None),
            (artifacts, "_cached", kept.get),
            (artifacts, "_compile", compiled),
            (artifacts, "_keep", lambda result, file: kept.update({file: result})),
            (session.Session, "init_all", init_all),
            (cpu_target, "get_virtual_cpu_target", lambda: target),
        ):
            patches.enter_context(mock.patch.object(place, name, value))
        for cache in caches:
            cache.cache_clear()
            patches.callback(cache.cache_clear)
        try:
            yield emulators
        finally:
            for emulator in emulators:
                emulator.close()
