"""The text decoder, and what is read off its logits; `signatures` says what its graphs take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from max.dtype import DType
from max.graph import DeviceRef, Dim, Graph, Module, TensorValue, Value, ops
from max.graph.dim import DimLike

from ...checkpoint.dimensions import Dimensions
from ...graphs.ops import Values, new_graph
from . import weight_specs
from .attention import cross_attention, self_attention
from .layers import AMPERE, FEW_ROWS, Layers, repeated
from .signatures import CHOICE, Signatures

BLOCKS_PER_ROW = 16
"""That share out the vocabulary of a row among them (gpu/sample/top_k.mojo)."""
PARTIAL_SUMS = 3 * BLOCKS_PER_ROW * 2
"""Numbers of a row: three partial log-sum-exps a block, each of two numbers."""


class DecoderGraphs:
    """Adds the decoder's graphs to a module.

    Args:
        module: They are added to it.
        device: Where they run.
        api: Of the device.
        dtype: What they compute in.
        storage: What the matrices are kept in: `dtype`, or int8 with a scale for each output, which
            is widened as it is read.
        d: Dimensions of the model.
        generation: Of tensor cores, see `Layers`.
    """

    def __init__(
        self,
        module: Module,
        device: DeviceRef,
        api: str,
        dtype: DType,
        storage: DType,
        d: Dimensions,
        generation: int = AMPERE,
    ) -> None:
        self.module = module
        self.device = device
        self.storage = storage
        self.signatures = Signatures(d, dtype, storage)
        self.many = Layers(device, api, dtype, generation=generation)
        self.few = Layers(device, api, dtype, few=True, generation=generation)
        self.dimensions = d
        self.head_size = d.n_text_state // d.n_text_head

    def add_all(self) -> None:
        """Every graph of the decoder."""
        self.add_prefill()
        self.add_step("step", self.many)
        self.add_step("step_few", self.few)
        self.add_advance()
        self.add_attended()
        self.add_probabilities()
        self.add_align()

    def add_prefill(self) -> None:
        """``prefill``: new tokens join the cache; their final states come back."""
        signature = self.signatures.prefill
        with new_graph("prefill", signature.types(self.device), self.module) as graph:
            states, _ = self._layers(graph, signature.values(graph), self.many)
            graph.output(states)

    def add_step(self, name: str, layers: Layers) -> None:
        """``step``, ``step_few``: the last token of every row, the rules, and what may follow.

        Returns candidates ``[items, 3, candidates]`` (ids, rows within the item, and scores as the
        bits of float32), watched ``[rows]``, the logits after the rules
        ``[items, queries, vocabulary]`` and the cross-attention's queries of all layers.
        """
        signature = self.signatures.step
        with new_graph(name, signature.types(self.device), self.module) as graph:
            values = signature.values(graph)
            states, queries = self._layers(graph, values, layers, new=1)
            logits = self._logits(values, states)
            room = ("rows", "capacity")
            candidates, watched, ruled, *_ = layers.kernel(
                "choose",
                {"logits": logits} | {one.name: values[one.name] for one in CHOICE},
                [
                    layers.integers("items", 3, "candidates"),
                    layers.floats("rows"),
                    layers.floats("items", "queries", self.dimensions.n_vocab),
                    layers.floats("rows"),
                    layers.floats("rows", PARTIAL_SUMS),
                    layers.floats("rows", BLOCKS_PER_ROW * Dim("capacity")),
                    layers.integers("rows", BLOCKS_PER_ROW * Dim("capacity")),
                    layers.floats(*room),
                    layers.integers(*room),
                    layers.floats(*room),
                ],
            )
            graph.output(candidates, watched, ruled, queries)

    def add_advance(self) -> None:
        """``advance``: the inputs of a step, in place, become those of the next one."""
        layers, signature = self.many, self.signatures.advance
        with new_graph("advance", signature.types(self.device), self.module) as graph:
            kept, *_ = layers.kernel(
                "advance",
                signature.values(graph),
                [
                    layers.integers("rows"),
                    layers.integers("rows", self.dimensions.n_text_ctx),
                    layers.integers("rows", 2),
                ],
                vocabulary=self.dimensions.n_vocab,
            )
            graph.output(kept)

    def add_attended(self) -> None:
        """``attended [items, queries]``: the frame that each token attends to most."""
        layers, signature = self.many, self.signatures.attended
        with new_graph("attended", signature.types(self.device), self.module) as graph:
            attended, _ = layers.kernel(
                "attended_frames",
                signature.values(graph),
                [
                    layers.integers("items", "queries"),
                    layers.floats("items", "chosen", "queries", "frames"),
                ],
                head_size=self.head_size,
            )
            graph.output(attended)

    def add_probabilities(self) -> None:
        """``probabilities``: ``[items, 1, count]`` of the ids at one of the tokens of a prefill."""
        signature = self.signatures.probabilities
        with new_graph("probabilities", signature.types(self.device), self.module) as graph:
            values = signature.values(graph)
            states, index = values["states"].tensor, values["index"].tensor
            logits = self._logits(values, ops.gather(states, index, axis=1))
            graph.output(self._probabilities(logits, values, "ids", ("items", 1, "count")))

    def add_align(self) -> None:
        """``align``: how much each token attended to each frame.

        Returns the summed weights of the alignment heads ``[items, queries, aligned]`` and the
        probabilities ``[items, queries, 1]`` of the target ids.
        """
        layers, signature = self.many, self.signatures.align
        with new_graph("align", signature.types(self.device), self.module) as graph:
            values = signature.values(graph)
            states, queries = self._layers(graph, values, layers)
            taken = ("cross_kv", "windows", "heads", "weight_sizes", "median_width")
            sums, _ = layers.kernel(
                "alignment_weights",
                {"queries": queries} | {name: values[name] for name in taken},
                [
                    layers.floats("items", "queries", "aligned"),
                    layers.floats("items", "chosen", "queries", "aligned"),
                ],
                head_size=self.head_size,
            )
            logits, shape = self._logits(values, states), ("items", "queries", 1)
            graph.output(sums, self._probabilities(logits, values, "targets", shape))

    def _layers(
        self, graph: Graph, values: Values, layers: Layers, new: int = FEW_ROWS
    ) -> tuple[TensorValue, TensorValue]:
        """Tokens to final states, and every layer's cross-attention queries.

        `new` is how many new tokens of a row are worked on together.
        """
        d = self.dimensions
        *embeddings, encodings = self._weights(values, weight_specs.decoder_start(d))
        own = []
        for index in range(d.n_text_layer):
            number = ops.constant(index, DType.int32, DeviceRef.CPU())
            own.append([number, *self._weights(values, weight_specs.decoder_layer(d, index))])
        gamma, beta = self._weights(values, weight_specs.decoder_end(d))
        tokens, positions = values["tokens"].tensor, values["positions"].tensor
        x = layers.embedded(tokens, positions, encodings, *embeddings)
        shared = ("slot_table", "positions", "windows", "cross_kv", "kv_cache")

        def layer(inputs: Sequence[Value], own: Sequence[TensorValue]) -> list[TensorValue]:
            x, *others = inputs
            given = dict(zip(shared, others, strict=True))
            number, *rest = own
            parts = iter(rest)

            def norm() -> Iterator[TensorValue]:
                return islice(parts, 2)

            def linear() -> Iterator[TensorValue]:
                return islice(parts, 3 if self.storage == DType.int8 else 2)

            qkv = layers.normed_linear(x.tensor, *norm(), *linear())
            attended = self_attention(layers, self.head_size, given, qkv, number, new)
            x = layers.added(x, attended, *linear())
            queries = layers.normed_linear(x, *norm(), *linear())
            attended = cross_attention(layers, self.head_size, given, queries, number)
            x = layers.added(x, attended, *linear())
            hidden = layers.normed_linear(x, *norm(), *linear(), activate=True)
            return [layers.added(x, hidden, *linear()), queries]

        results = repeated(graph, [x, *(values[name] for name in shared)], own, layer)
        states = layers.norm(results[-1][0], gamma, beta)
        return states, ops.stack([queries for _, queries in results])

    def _logits(self, values: Values, states: TensorValue) -> TensorValue:
        """Of some states over the vocabulary, in float32."""
        embeddings = weight_specs.embeddings(self.dimensions)
        return self.many.logits(states, *self._weights(values, [embeddings]))

    def _probabilities(
        self, logits: TensorValue, values: Values, ids: str, shape: tuple[DimLike, ...]
    ) -> TensorValue:
        """Of the input `ids`, of a `shape`, over the first ids as far as the limit."""
        inputs = {"logits": logits, "ids": values[ids], "limit": values["limit"]}
        return self.many.kernel("probabilities", inputs, [self.many.floats(*shape)])[0]

    def _weights(self, values: Values, wanted: Sequence[weight_specs.Weight]) -> list[TensorValue]:
        """Those among the inputs of a graph."""
        return [values[one.name].tensor for one in weight_specs.inputs(wanted, self.storage)]
