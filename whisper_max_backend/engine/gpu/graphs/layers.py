"""Building blocks of the GPU's graphs: MAX's operations or ours, by device and data type."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from max.dtype import DType
from max.graph import BufferValue, DeviceRef, Graph, TensorType, TensorValue, Value, ops
from max.graph.dim import DimLike

from ...compile.artifacts import kernels_path
from ...graphs.ops import Kernels, Values

FEW_ROWS = 8
"""Rows that share one reading of the weights (gpu/linear/few_rows_simt.mojo)."""
THREADS, AMPERE, HOPPER = 0, 8, 9
"""What multiplies: no tensor cores, or a generation of NVIDIA's (gpu/linear/layer.mojo)."""
_FLASH = {
    ("cuda", DType.bfloat16),
}
"""Where MAX's flash attention compiles; elsewhere all scores are in memory."""


class Layers(Kernels):
    """Builds layers for a device and a type.

    Residuals, normalisation and softmax are float32; products take and give `dtype` with float32
    sums.

    Args:
        device: Where the graph runs.
        api: ``"cpu"``, ``"cuda"`` or ``"hip"``.
        dtype: What it computes in.
        few: Whether products are for few rows, so that reading the weights takes the time. On a
            CPU the kernel for few rows makes all products: MAX's takes minutes to compile.
        generation: The newest generation of tensor cores that may be used. NVIDIA GPUs use them
            for the half types. With `HOPPER`, kernels of few rows begin early (gpu/launch.mojo).
    """

    def __init__(
        self,
        device: DeviceRef,
        api: str,
        dtype: DType,
        few: bool = False,
        generation: int = AMPERE,
    ) -> None:
        super().__init__(device)
        self.api = api
        self.dtype = dtype
        self.few = few
        # MAX's products of half types (26.7) gave an encoder's first rows wrong on an H200, though
        # each is right alone; and compiling them takes most of ten minutes.
        half = api == "cuda" and dtype != DType.float32
        self.tensor_cores = generation if half else THREADS
        self.own_products = few or api == "cpu" or half
        self.early = few and self.tensor_cores == HOPPER

    @property
    def flash(self) -> bool:
        """Whether the encoder's attention is MAX's flash attention."""
        return (self.api, self.dtype) in _FLASH

    def tensor(self, *shape: DimLike) -> TensorType:
        """A tensor of the type that the model computes in."""
        return TensorType(self.dtype, list(shape), self.device)

    def kernel(
        self,
        name: str,
        inputs: Values,
        results: Sequence[TensorType],
        **parameters: bool | int | DType,
    ) -> list[TensorValue]:
        """The kernel ``whisper.gpu.<name>``, see `Kernels.add`."""
        return self.add(f"gpu.{name}", inputs, results, parameters)

    def norm(self, x: TensorValue, gamma: TensorValue, beta: TensorValue) -> TensorValue:
        """Layer normalisation of float32, in the type of the products."""
        return self._norm(x, gamma, beta, self.tensor(*x.shape))

    def last_norm(self, x: TensorValue, gamma: TensorValue, beta: TensorValue) -> TensorValue:
        """As `norm`, in float32."""
        return self._norm(x, gamma, beta, self.floats(*x.shape))

    def cast(self, x: TensorValue) -> TensorValue:
        """Another float type in that of the products."""
        return self.kernel("cast", {"x": x}, [self.tensor(*x.shape)])[0]

    def linear(
        self, x: TensorValue, weight: TensorValue, *vectors: TensorValue, activate: bool = False
    ) -> TensorValue:
        """``x weight^T + bias``, with GELU if `activate`.

        `vectors` are the bias and, before it, the scales of a weight that is int8.
        """
        if self._own(weight):
            result = self.tensor(*x.shape[:-1], weight.shape[0])
            inputs = {"x": x, **_named(weight, vectors)}
            return self._linear(_kept("linear", weight), inputs, result, activate=activate)
        y = self._product(x, weight, *vectors)
        return ops.cast(ops.gelu(y) if activate else y, self.dtype)

    def normed_linear(
        self,
        x: TensorValue,
        gamma: TensorValue,
        beta: TensorValue,
        weight: TensorValue,
        *vectors: TensorValue,
        activate: bool = False,
    ) -> TensorValue:
        """`linear` of `norm`: for few rows, tensor cores have a kernel for both."""
        if not (self.few and self.tensor_cores):
            return self.linear(self.norm(x, gamma, beta), weight, *vectors, activate=activate)
        result = self.tensor(*x.shape[:-1], weight.shape[0])
        inputs = {"x": x, "gamma": gamma, "beta": beta, **_named(weight, vectors)}
        name = _kept("linear_normed", weight)
        parameters = {"activate": activate, "width": int(x.shape[-1]), "early": self.early}
        return self.kernel(name, inputs, [result], **parameters)[0]

    def added(
        self, residual: TensorValue, x: TensorValue, weight: TensorValue, *vectors: TensorValue
    ) -> TensorValue:
        """``residual + x weight^T + bias`` in float32; `vectors` as in `linear`."""
        if self._own(weight):
            inputs = {"x": x, **_named(weight, vectors), "residual": residual}
            name = _kept("linear_added", weight)
            return self._linear(name, inputs, residual.type, early=self.early)
        return residual + self._product(x, weight, *vectors)

    def logits(self, states: TensorValue, weight: TensorValue, *scales: TensorValue) -> TensorValue:
        """``states weight^T`` in float32, `scales` those of a weight that is int8."""
        result = self.floats(*states.shape[:-1], weight.shape[0])
        inputs = {"x": states, **_named(weight, scales)}
        return self._linear(_kept("logits", weight), inputs, result)

    def embedded(
        self,
        tokens: TensorValue,
        positions: TensorValue,
        encodings: TensorValue,
        weight: TensorValue,
        *scales: TensorValue,
    ) -> TensorValue:
        """Embeddings of tokens and of where they stand, in float32; `scales` as in `logits`."""
        inputs = {
            "tokens": tokens,
            "positions": positions,
            **_named(weight, scales, "embeddings"),
            "encodings": encodings,
        }
        result = self.floats(*tokens.shape, weight.shape[1])
        return self.kernel(_kept("embed", weight), inputs, [result])[0]

    def attention(
        self, queries: TensorValue, keys: TensorValue, values: TensorValue, *, heads: int
    ) -> TensorValue:
        """Attention of all positions to all, ``[batch, positions, width]``."""
        batch, positions, width = queries.shape
        size = int(width) // heads
        scale = size**-0.5
        q, k, v = (ops.reshape(x, [batch, positions, heads, size]) for x in (queries, keys, values))
        if self.flash:
            from max.nn.attention import MHAMaskVariant
            from max.nn.kernels import flash_attention_gpu

            attended = flash_attention_gpu(q, k, v, MHAMaskVariant.NULL_MASK, scale)
            return ops.reshape(attended, queries.shape)
        # Queries are scaled, not scores: those might leave the range of float16.
        q, k, v = (ops.permute(x, [0, 2, 1, 3]) for x in (q * scale, k, v))
        scores = ops.cast(ops.matmul(q, ops.transpose(k, 2, 3)), DType.float32)
        attended = ops.matmul(ops.cast(ops.softmax(scores), self.dtype), v)
        return ops.reshape(ops.permute(attended, [0, 2, 1, 3]), queries.shape)

    def _norm(
        self, x: TensorValue, gamma: TensorValue, beta: TensorValue, result: TensorType
    ) -> TensorValue:
        return self.kernel("norm", {"x": x, "gamma": gamma, "beta": beta}, [result])[0]

    def _own(self, weight: TensorValue) -> bool:
        """Whether products with it are a kernel of gpu/linear, as all of int8 are."""
        return self.own_products or weight.dtype == DType.int8

    def _linear(
        self, name: str, inputs: Values, result: TensorType, **parameters: bool | int
    ) -> TensorValue:
        """A kernel of gpu/linear."""
        parameters["tensor_cores"] = self.tensor_cores
        return self.kernel(name, inputs, [result], **parameters)[0]

    def _product(self, x: TensorValue, weight: TensorValue, bias: TensorValue) -> TensorValue:
        """``x weight^T + bias`` in float32.

        What is multiplied comes from a kernel of this package or another product: see norm.mojo.
        """
        return ops.cast(ops.matmul(x, ops.transpose(weight, 0, 1)), DType.float32) + bias


def repeated(
    graph: Graph,
    inputs: Sequence[Value],
    per_layer: Sequence[Sequence[TensorValue]],
    body: Callable[[Sequence[Value], Sequence[TensorValue]], list[TensorValue]],
    carried: int = 1,
) -> list[list[TensorValue]]:
    """Applies the same layer again and again; it is compiled once.

    Args:
        graph: Under construction.
        inputs: What every layer gets; the first `carried` are replaced by its first results.
        per_layer: What each layer gets of its own.
        body: The layer: results of inputs and own inputs.
        carried: How many results go into the next layer.

    Returns:
        The results of every layer.
    """
    types = [value.type for value in (*inputs, *per_layer[0])]
    count = len(inputs)
    extensions = [kernels_path()]
    name = f"{graph.name}_layer"
    with graph.add_subgraph(name, input_types=types, custom_extensions=extensions) as layer:
        values = [_unwrapped(value) for value in layer.inputs]
        layer.output(*body(values[:count], [value.tensor for value in values[count:]]))
    results = []
    current = list(inputs)
    for own in per_layer:
        outputs = [value.tensor for value in ops.call(layer, *current, *own)]
        current[:carried] = outputs[:carried]
        results.append(outputs)
    return results


def _named(
    weight: TensorValue, vectors: Sequence[TensorValue], name: str = "weight"
) -> dict[str, TensorValue]:
    """By the kernels' names: a weight, its scales if it is int8, and a bias if there is one."""
    scale = ["scale"] if weight.dtype == DType.int8 else []
    return dict(zip([name, *scale, "bias"], [weight, *vectors], strict=False))


def _kept(name: str, weight: TensorValue) -> str:
    """The kernel for what the weight is kept in."""
    return f"{name}_int8" if weight.dtype == DType.int8 else name


def _unwrapped(value: Value) -> Value:
    return value.buffer if isinstance(value, BufferValue) else value.tensor
