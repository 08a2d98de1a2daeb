"""The operations that encoder and decoder are built of, as nodes of a MAX graph.

Activations are ``[batch, rows, state]`` float32. Dense weights are stored in column panels
(``mojo/whisper_kernels/gemm.mojo``), which `packed_shape` describes and the loader fills.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from max.dtype import DType
from max.graph import (
    BufferType,
    BufferValue,
    DeviceRef,
    Graph,
    Module,
    TensorType,
    TensorValue,
    Weight,
    ops,
)
from max.graph.dim import DimLike

from ..artifacts import kernels_path

PANEL = 32
"""Columns of a weight panel, as in the kernels."""


def packed_shape(outputs: int, inputs: int) -> tuple[int, int, int]:
    """Shape of a weight ``[outputs, inputs]`` in panels."""
    return (-(-outputs // PANEL), inputs, PANEL)


def packed_attention_size(frames: int, head_size: int) -> int:
    """Floats that the packed keys and values of one head take (attention.mojo)."""
    return packed_shape(frames, head_size)[0] * PANEL * head_size + (
        packed_shape(head_size, frames)[0] * PANEL * frames
    )


def new_graph(name: str, input_types: Sequence[TensorType | BufferType], module: Module) -> Graph:
    """A graph of `module` that can use the kernels; a context manager."""
    return Graph(
        name,
        input_types=list(input_types),
        module=module,
        custom_extensions=[kernels_path()],
    )


class Layers:
    """Adds named layers to a graph under construction.

    Args:
        graph: The graph, opened. Its last input is how many threads the kernels may use.
        device: Where it runs.
        storage: Type that dense weights are kept in; all arithmetic is float32.
    """

    def __init__(self, graph: Graph, device: DeviceRef, storage: DType = DType.float32) -> None:
        self.graph = graph
        self.device = device
        self.storage = storage
        self.threads = graph.inputs[-1].tensor
        self._weights: dict[str, TensorValue] = {}

    def weight(self, name: str, shape: Sequence[int], dtype: DType = DType.float32) -> TensorValue:
        """An external weight, which graphs of one module share by its name."""
        if name not in self._weights:
            self._weights[name] = self.graph.add_weight(
                Weight(name, dtype, tuple(shape), device=self.device)
            )
        return self._weights[name]

    def packed_weight(self, name: str, outputs: int, inputs: int) -> TensorValue:
        """A dense weight in panels."""
        return self.weight(name, packed_shape(outputs, inputs), self.storage)

    def kernel(
        self,
        name: str,
        inputs: Sequence[TensorValue],
        shape: Sequence[DimLike],
        parameters: Mapping[str, bool | int | float | str | DType] | None = None,
    ) -> TensorValue:
        """A kernel of ours with one float32 result."""
        result = TensorType(DType.float32, list(shape), self.device)
        return self.kernels(name, inputs, [result], parameters)[0]

    def kernels(
        self,
        name: str,
        inputs: Sequence[TensorValue],
        results: Sequence[TensorType],
        parameters: Mapping[str, bool | int | float | str | DType] | None = None,
    ) -> list[TensorValue]:
        """A kernel with any results."""
        values = [*inputs, self.threads]
        outputs = ops.custom(f"whisper.{name}", self.device, values, list(results), parameters)
        return [output.tensor for output in outputs]

    def index(self, layer: int) -> TensorValue:
        """A layer's number as a tensor: one compiled kernel then serves all layers."""
        return ops.constant(np.array([layer], np.int32), DType.int32, self.device)

    def layer_norm(self, x: TensorValue, name: str) -> TensorValue:
        """Normalisation over the last dimension."""
        width = int(x.shape[-1])
        gamma = self.weight(f"{name}/gamma", (width,))
        beta = self.weight(f"{name}/beta", (width,))
        return self.kernel("layer_norm", [x, gamma, beta], x.shape)

    def linear(
        self,
        x: TensorValue,
        name: str,
        outputs: int,
        *,
        activate: bool = False,
        residual: TensorValue | None = None,
    ) -> TensorValue:
        """``x W^T + b``, through GELU if `activate`; plus `residual` if given."""
        weight = self.packed_weight(f"{name}/weight", outputs, int(x.shape[-1]))
        bias = self.weight(f"{name}/bias", (outputs,))
        shape = [*x.shape[:-1], outputs]
        if residual is not None:
            return self.kernel("linear_residual", [x, weight, bias, residual], shape)
        return self.kernel("linear", [x, weight, bias], shape, {"activate": activate})

    def feed_forward(self, x: TensorValue, name: str) -> TensorValue:
        """``x + W2 gelu(W1 norm(x))``."""
        width = int(x.shape[-1])
        hidden = self.layer_norm(x, f"{name}/layer_norm")
        hidden = self.linear(hidden, f"{name}/linear_0", 4 * width, activate=True)
        return self.linear(hidden, f"{name}/linear_1", width, residual=x)

    def self_attention(
        self,
        x: TensorValue,
        name: str,
        layer: int,
        heads: int,
        cache: BufferValue,
        origins: TensorValue,
        positions: TensorValue,
    ) -> TensorValue:
        """``x`` plus causal attention of new tokens over the cache, which they join."""
        width = int(x.shape[-1])
        qkv = self.linear(self.layer_norm(x, f"{name}/layer_norm"), f"{name}/linear_0", 3 * width)
        attended = ops.inplace_custom(
            "whisper.self_attention",
            self.device,
            [qkv, cache, origins, positions, self.index(layer), self.threads],
            [TensorType(DType.float32, x.shape, self.device)],
            {"heads": heads},
        )
        return self.linear(attended[0].tensor, f"{name}/linear_1", width, residual=x)
