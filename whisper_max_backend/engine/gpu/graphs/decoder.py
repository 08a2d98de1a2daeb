"""The text decoder, and what is read off its logits.

Symbolic dimensions: ``items`` windows in the batch, ``rows`` hypotheses (items * beams),
``queries`` the new tokens of all beams of an item, beam by beam.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from max.dtype import DType
from max.graph import BufferType, DeviceRef, Dim, Graph, Module, TensorType, TensorValue, Value, ops

from ...checkpoint.dimensions import Dimensions
from ...graphs.ops import new_graph
from . import weights
from .layers import FEW_ROWS, Layers, repeated

BLOCKS_PER_ROW = 16
"""That share out the vocabulary of a row among them (gpu/sample/top_k.mojo)."""
PARTIAL_SUMS = 3 * BLOCKS_PER_ROW * 2
"""Numbers of a row: three partial log-sum-exps a block, each of two numbers."""
SPLITS = 12
"""Parts of a window's frames that are attended to at the same time, where queries are few."""
_HISTORY = 6  # tokens, positions, slot table, windows, cross_kv, cache


class DecoderGraphs:
    """Adds the decoder's graphs to a module.

    Args:
        module: They are added to it.
        device: Where they run.
        api: Of the device.
        dtype: What they compute in.
        kept: What the matrices are kept in: `dtype`, or int8 with a scale for each output, which
            is widened as it is read.
        d: Dimensions of the model.
    """

    def __init__(
        self,
        module: Module,
        device: DeviceRef,
        api: str,
        dtype: DType,
        kept: DType,
        d: Dimensions,
    ) -> None:
        self.module = module
        self.kept = kept
        self.many = Layers(device, api, dtype)
        self.few = Layers(device, api, dtype, few=True)
        self.dimensions = d
        self.head_size = d.n_text_state // d.n_text_head

    def add_all(self) -> None:
        """Every graph of the decoder."""
        self.add_prefill()
        self.add_step("step", self.many)
        self.add_step("step_few", self.few)
        self.add_probabilities()
        self.add_align()

    def add_prefill(self) -> None:
        """``prefill``: new tokens join the cache; their final states come back."""
        with new_graph("prefill", self._history(), self.module) as graph:
            states, _ = self._layers(graph, self.many)
            graph.output(states)

    def add_step(self, name: str, layers: Layers) -> None:
        """``step``, ``step_few``: the last token of every row, the rules, and what may follow.

        Returns candidates ``[items, 3, candidates]`` (ids, rows within the item, and scores as the
        bits of float32), watched ``[rows]`` and the logits after the rules
        ``[items, queries, vocabulary]``.
        """
        history = self._history()
        inputs = [
            *history,
            layers.floats("rows"),  # scores so far
            layers.integers("rows", 4),  # ranges
            layers.integers("rows", "banned"),
            layers.integers("rows", "penalized"),
            layers.integers("rows"),  # check_timestamps
            layers.integers(1),  # first timestamp
            layers.integers("rows", 4),  # watched id, top-k, seed, number within the request
            layers.floats("rows", 2),  # repetition penalty, temperature
            layers.integers("candidates"),  # only its length counts
            layers.integers("capacity"),  # likewise: how many of each row are looked at
        ]
        with new_graph(name, inputs, self.module) as graph:
            states, _ = self._layers(graph, layers, new=1)
            values = [value.tensor for value in graph.inputs[len(history) : -2]]
            room = ("rows", "capacity")
            candidates, watched, ruled, *_ = layers.kernel(
                "choose",
                [self._logits(graph, states), *values],
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
            graph.output(candidates, watched, ruled)

    def add_probabilities(self) -> None:
        """``probabilities``: of chosen ids at one of the tokens of a prefill.

        ``states [items, queries, width]``, ``index [1]``, ``ids [items, 1, count]`` and
        ``limit [1]`` give ``[items, 1, count]``.
        """
        layers, d = self.many, self.dimensions
        inputs = [
            layers.tensor("items", "queries", d.n_text_state),
            layers.integers(1),
            layers.integers("items", 1, "count"),
            layers.integers(1),
            *weights.input_types([weights.embeddings(d)], self.kept, layers.device),
        ]
        with new_graph("probabilities", inputs, self.module) as graph:
            states, index, ids, limit, *embeddings = (value.tensor for value in graph.inputs)
            logits = layers.logits(ops.gather(states, index, axis=1), *embeddings)
            result = layers.floats("items", 1, "count")
            graph.output(*layers.kernel("probabilities", [logits, ids, limit], [result]))

    def add_align(self) -> None:
        """``align``: how much each token attended to each frame.

        Returns the summed weights of the alignment heads ``[items, queries, aligned]`` and the
        probabilities ``[items, queries, 1]`` of the target ids.
        """
        layers = self.many
        history = self._history()
        inputs = [
            *history,
            layers.integers("items", 3),  # tokens, tokens to normalise over, frames
            layers.integers(1),  # width of the median filter
            layers.integers("aligned"),  # only its length counts: the most frames of an item
            layers.integers("chosen", 2),  # alignment heads: layer, head
            layers.integers("items", "queries", 1),  # targets
            layers.integers(1),  # how many ids the probabilities are over
        ]
        with new_graph("align", inputs, self.module) as graph:
            sizes, median_width, _, heads, targets, limit = (
                value.tensor for value in graph.inputs[len(history) :]
            )
            states, queries = self._layers(graph, layers)
            sums, _ = layers.kernel(
                "alignment_weights",
                [queries, graph.inputs[4].tensor, heads, sizes, median_width],
                [
                    layers.floats("items", "queries", "aligned"),
                    layers.floats("items", "chosen", "queries", "aligned"),
                ],
                head_size=self.head_size,
            )
            (probabilities,) = layers.kernel(
                "probabilities",
                [self._logits(graph, states), targets, limit],
                [layers.floats("items", "queries", 1)],
            )
            graph.output(sums, probabilities)

    def _history(self) -> list[TensorType | BufferType]:
        """Inputs of a pass: tokens, positions, slot table, windows, cross_kv, cache, weights."""
        layers, d = self.many, self.dimensions
        cross_kv = [d.n_text_layer, "windows", "frames", 2 * d.n_text_state]
        cache = [d.n_text_layer, 2, "slots", d.n_text_ctx, d.n_text_state]
        return [
            layers.integers("items", "queries"),
            layers.integers("rows"),
            layers.integers("rows", d.n_text_ctx),
            layers.integers("items"),
            layers.tensor(*cross_kv),
            BufferType(layers.dtype, cache, layers.device),
            *weights.input_types(weights.decoder_weights(d), self.kept, layers.device),
        ]

    def _layers(
        self, graph: Graph, layers: Layers, new: int = FEW_ROWS
    ) -> tuple[TensorValue, TensorValue]:
        """Tokens to final states, and every layer's cross-attention queries.

        `new` is how many new tokens of a row are worked on together.
        """
        d = self.dimensions
        tokens, positions, slot_table, windows, cross_kv = (v.tensor for v in graph.inputs[:5])
        cache = graph.inputs[5].buffer
        values = (v.tensor for v in graph.inputs[_HISTORY:])

        def take(wanted: Sequence[weights.Weight]) -> list[TensorValue]:
            count = len(weights.input_types(wanted, self.kept, layers.device))
            return list(islice(values, count))

        *embeddings, encodings = take(weights.decoder_start(d))
        own = []
        for index in range(d.n_text_layer):
            number = ops.constant(index, DType.int32, DeviceRef.CPU())
            own.append([number, *take(weights.decoder_layer(d, index))])
        gamma, beta = take(weights.decoder_end(d))
        x = layers.embedded(tokens, positions, encodings, *embeddings)
        splits = SPLITS if layers.few else 1

        def layer(inputs: Sequence[Value], own: Sequence[TensorValue]) -> list[TensorValue]:
            x, slot_table, positions, windows, cross_kv, cache = inputs
            number, *rest = own
            parts = iter(rest)
            head = {"head_size": self.head_size}

            def norm() -> Iterator[TensorValue]:
                return islice(parts, 2)

            def linear() -> Iterator[TensorValue]:
                return islice(parts, 3 if self.kept == DType.int8 else 2)

            qkv = layers.normed_linear(x.tensor, *norm(), *linear())
            result = layers.tensor("items", "queries", d.n_text_state)
            (attended,) = layers.kernel(
                "self_attention",
                [cache, qkv, slot_table, positions, number],
                [result],
                group=new,
                **head,
            )
            x = layers.added(x, attended, *linear())
            queries = layers.normed_linear(x, *norm(), *linear())
            split_sums = layers.floats(
                splits, "items", "queries" if layers.few else 1, d.n_text_head, self.head_size + 2
            )
            attended, _ = layers.kernel(
                "cross_attention",
                [queries, cross_kv, windows, number],
                [result, split_sums],
                group=FEW_ROWS,
                splits=splits,
                **head,
            )
            x = layers.added(x, attended, *linear())
            hidden = layers.normed_linear(x, *norm(), *linear(), activate=True)
            return [layers.added(x, hidden, *linear()), queries]

        shared: list[Value] = [x, slot_table, positions, windows, cross_kv, cache]
        results = repeated(graph, shared, own, layer)
        states = layers.norm(results[-1][0], gamma, beta)
        return states, ops.stack([queries for _, queries in results])

    def _logits(self, graph: Graph, states: TensorValue) -> TensorValue:
        """Of all states over the vocabulary, in float32."""
        wanted = [weights.embeddings(self.dimensions)]
        count = len(weights.input_types(wanted, self.kept, self.many.device))
        embeddings = graph.inputs[_HISTORY : _HISTORY + count]
        return self.many.logits(states, *(value.tensor for value in embeddings))
