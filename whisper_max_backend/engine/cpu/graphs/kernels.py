"""The kernels of a CPU as nodes of a MAX graph.

All sizes of a model are symbolic and its weights are inputs, laid out one after another as the
kernels read them (`whisper_max_backend.engine.cpu.weights`): a compiled graph serves every model.
"""

from __future__ import annotations

from collections.abc import Sequence

from max.graph import DeviceRef, Graph, TensorType, TensorValue

from ...graphs.ops import Kernels, Parameters, Values


class CPUKernels(Kernels):
    """Adds kernels that share out their work among threads.

    Args:
        graph: The graph, opened. Its last input is how many threads the kernels may use.
        device: Where it runs.
    """

    def __init__(self, graph: Graph, device: DeviceRef) -> None:
        super().__init__(device)
        self.threads = graph.inputs[-1].tensor

    def call(
        self,
        name: str,
        inputs: Values,
        results: Sequence[TensorType],
        parameters: Parameters | None = None,
    ) -> list[TensorValue]:
        """See `Kernels.add`; the threads are the kernel's last input."""
        return self.add(name, {**inputs, "threads": self.threads}, results, parameters)
