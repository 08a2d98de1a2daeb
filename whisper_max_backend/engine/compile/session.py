"""Compiles and loads graphs; imports the graph builder only to compile.

`max.engine` imports the graph builder, which takes about as long as transcribing a short recording
and 30 MB, and which a run that finds everything compiled never uses. Loading and executing need
only the core beneath it. Its names are private to MAX, so where this release has others,
`max.engine` does it all.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from max.driver import CPU, Buffer, Device

from ...system.executable_memory import require_executable_memory
from ...system.fork_and_exit import inside_max, max_starts
from .scratch_folder import scratch_folder

if TYPE_CHECKING:
    from max.engine.api import CompiledModel
    from max.graph import Graph, Module

try:
    from max._core.engine import CompiledModels as _Compiled
    from max._core.engine import InferenceSession as _Loader
    from max._core.engine import read as _read
except ImportError:  # a release of MAX that is built otherwise
    _Compiled = None

_MAX_CACHES = "MODULAR_CACHE_DIR"


class LoadedGraph:
    """A compiled graph on its devices, ready to be executed."""

    def __init__(self, loaded: Any) -> None:
        self._loaded = loaded

    def execute(self, *inputs: Buffer | np.ndarray | np.generic) -> list[Buffer]:
        """The graph's results. Arrays are taken as they lie in the host's memory."""
        buffers = [
            value if isinstance(value, Buffer) else Buffer.from_numpy(np.asarray(value))
            for value in inputs
        ]
        with inside_max:
            results: list[Buffer] = self._loaded._execute_device_tensors(buffers)
        return results

    def capture(self, key: int, *inputs: Buffer) -> list[Buffer]:
        """Executes the graph and keeps the execution as a device graph; returns its results."""
        with inside_max:
            results: list[Buffer] = self._with_all_of_max().capture(key, *inputs)
        return results

    def replay(self, key: int, *inputs: Buffer) -> None:
        """Executes what was captured, from and to the same buffers."""
        with inside_max:
            self._with_all_of_max().replay(key, *inputs)

    def debug_verify_replay(self, key: int, *inputs: Buffer) -> None:
        """Raises RuntimeError where a replay would launch something else than an execution."""
        self._with_all_of_max().debug_verify_replay(key, *inputs)

    def release_captured_graph(self, key: int) -> None:
        """Forgets what was captured."""
        self._with_all_of_max().release_captured_graph(key)

    def _with_all_of_max(self) -> Any:
        import max.engine  # noqa: F401  adds these methods to what is loaded

        return self._loaded


class Session:
    """Some devices: compiles graphs for them and loads compiled ones onto them.

    Raises:
        RuntimeError: The system does not let this process load what is compiled.
    """

    def __init__(self, devices: Iterable[Device]) -> None:
        require_executable_memory()
        max_starts()
        self.devices: list[Device] = list(dict.fromkeys([*devices, CPU()]))
        self._loader: Any = None
        self._builder: Any = None

    def compile(self, graph: Graph | Module, custom_extensions: Any = None) -> CompiledModel:
        """The compiled form of a graph or a module of graphs.

        Raises:
            RuntimeError: It does not compile.
        """
        compiled: CompiledModel
        with inside_max.left(), _caches_of_max():
            compiled = self._engine().compile(graph, custom_extensions=custom_extensions)
        return compiled

    def init_all(
        self, artifact: Any, weights_registry: Mapping[str, Any] | None = None
    ) -> dict[str, LoadedGraph]:
        """Every graph of what `compile` or `read` returned, by name, ready to be executed."""
        if _Compiled is None or not isinstance(artifact, _Compiled):
            loaded = self._engine().init_all(artifact, weights_registry=weights_registry)
            return {name: LoadedGraph(model) for name, model in loaded.items()}
        if self._loader is None:
            self._loader = _Loader(self.devices, [], 0)
        handle = self._loader._wrap_compiled(artifact)
        models = self._loader._load_all(handle, weights_registry or {})
        return {model.name: LoadedGraph(model) for model in models}

    def _engine(self) -> Any:
        if self._builder is None:
            from max.engine import InferenceSession

            self._builder = InferenceSession(devices=self.devices)
        return self._builder


@contextlib.contextmanager
def _caches_of_max() -> Iterator[None]:
    """What MAX keeps between compilations goes to the scratch folder, unless the user says where.

    Else MAX takes the home folder, and compiles nothing where that cannot be written to, or /opt,
    where root's files are in the way of others. Kept longer it is of no use: it serves the same
    graphs alone, and this package keeps their compiled form itself.
    """
    if os.environ.get(_MAX_CACHES):
        yield
        return
    os.environ[_MAX_CACHES] = str(scratch_folder() / "max")
    try:
        yield
    finally:
        del os.environ[_MAX_CACHES]


def read(content: bytes) -> Any:
    """A compiled artifact from the bytes of its file, for `Session.init_all`.

    Raises:
        RuntimeError: MAX refuses them.
    """
    if _Compiled is not None:
        return _read(content)
    from max.engine.api import read as read_artifact

    return read_artifact(io.BytesIO(content))
