"""The text decoder (TextDecoder in openai/whisper's model.py), and what is read off its logits.

Symbolic dimensions: ``items`` windows in the batch, ``rows`` hypotheses (items * beams),
``queries`` the new tokens of all beams of an item, beam by beam, ``frames`` encoder states.
"""

from __future__ import annotations

from collections.abc import Callable

from max.dtype import DType
from max.graph import BufferType, DeviceRef, Dim, Graph, Module, TensorType, TensorValue, ops
from max.graph.dim import DimLike

from ..checkpoint import Dimensions
from .layers import Layers, new_graph, packed_attention_size


def memory_shape(dimensions: Dimensions, windows: DimLike) -> list[DimLike]:
    """Packed cross-attention keys and values: ``[layers, windows, heads, size]``."""
    heads = dimensions.n_text_head
    size = packed_attention_size(dimensions.n_audio_ctx, dimensions.n_text_state // heads)
    return [dimensions.n_text_layer, windows, heads, size]


def cache_shape(dimensions: Dimensions, slots: DimLike) -> list[DimLike]:
    """Self-attention keys and values: ``[layers, 2, slots, n_text_ctx, n_text_state]``."""
    return [dimensions.n_text_layer, 2, slots, dimensions.n_text_ctx, dimensions.n_text_state]


class DecoderGraphs:
    """Adds the decoder's graphs to a module.

    Args:
        module: Receives them.
        dimensions: The model's.
        device: Where they run.
        storage: Type of the weights that every step reads: a step's time is their bytes.
    """

    def __init__(
        self, module: Module, dimensions: Dimensions, device: DeviceRef, storage: DType
    ) -> None:
        self.module = module
        self.dimensions = dimensions
        self.device = device
        self.storage = storage

    def add_all(self) -> None:
        """Every graph of the decoder."""
        self.add_remember()
        self.add_prefill()
        self.add_step()
        self.add_probabilities()
        self.add_align()

    def add_remember(self) -> None:
        """``remember``: the cross-attention keys and values of a window, once.

        ``states [items, frames, n_audio_state]`` into ``memory``, in place.
        """
        d = self.dimensions
        states = self._floats("items", "frames", d.n_audio_state)
        memory = BufferType(DType.float32, memory_shape(d, "items"), self.device)
        with new_graph("remember", [states, memory, self._integers(1)], self.module) as graph:
            layers = Layers(graph, self.device)
            for index in range(d.n_text_layer):
                name = f"decoder/layer_{index}/attention/linear_1"
                keys_values = layers.linear(graph.inputs[0].tensor, name, 2 * d.n_text_state)
                ops.inplace_custom(
                    "whisper.pack_memory",
                    self.device,
                    [graph.inputs[1].buffer, keys_values, layers.index(index), layers.threads],
                )
            graph.output()

    def add_prefill(self) -> None:
        """``prefill``: new tokens join the cache; their final states come back."""
        with new_graph("prefill", [*self._history(), self._integers(1)], self.module) as graph:
            graph.output(self._layers(graph, Layers(graph, self.device, self.storage)))

    def add_step(self) -> None:
        """``step``: the last token of every row, the rules, and the candidates after it.

        Returns ids, origins, scores ``[items, candidates]``, watched ``[rows]`` and the logits
        after the rules ``[items, queries, n_vocab]``.
        """
        inputs = [
            *self._history(),
            self._floats("rows"),  # scores so far
            self._integers("suppressed"),
            self._integers("rows", 4),  # ranges
            self._integers("rows", "banned"),
            self._integers("rows", "penalized"),
            self._integers("rows"),  # check_timestamps
            self._integers(2),  # first timestamp, watched id
            self._floats(1),  # repetition penalty
            self._integers(2),  # top-k, seed
            self._floats(1),  # temperature
            self._integers("candidates"),  # only its length counts
            self._integers(1),  # threads
        ]
        with new_graph("step", inputs, self.module) as graph:
            layers = Layers(graph, self.device, self.storage)
            logits = self._project(layers, self._layers(graph, layers))
            scores, *rules, numbers, temperature, picks = [
                value.tensor for value in graph.inputs[len(self._history()) : -1]
            ]
            ruled, watched = layers.kernels(
                "apply_rules",
                [logits, *rules],
                [self._floats(*logits.shape), self._floats("rows")],
            )
            shape = ("items", "candidates")
            chosen = layers.kernels(
                "candidates",
                [ruled, scores, numbers, temperature, picks],
                [self._integers(*shape), self._integers(*shape), self._floats(*shape)],
            )
            graph.output(*chosen, watched, ruled)

    def add_probabilities(self) -> None:
        """``probabilities``: of chosen ids at one of the tokens of a prefill.

        ``states [items, queries, n_text_state]``, ``index [1]``, ``ids [items, 1, count]`` and
        ``limit [1]`` give ``[items, 1, count]``.
        """
        inputs = [
            self._floats("items", "queries", self.dimensions.n_text_state),
            self._integers(1),
            self._integers("items", 1, "count"),
            self._integers(1),
            self._integers(1),  # threads
        ]
        with new_graph("probabilities", inputs, self.module) as graph:
            layers = Layers(graph, self.device, self.storage)
            states, index, ids, limit = (value.tensor for value in graph.inputs[:-1])
            taken = layers.kernel("take_token", [states, index], ["items", 1, states.shape[2]])
            logits = self._project(layers, taken)
            graph.output(
                layers.kernel("probabilities", [logits, ids, limit], ["items", 1, "count"])
            )

    def add_align(self) -> None:
        """``align``: when the tokens of a transcript were spoken.

        Returns paths ``[items, queries + aligned, 2]``, their lengths ``[items]`` and the
        probabilities ``[items, queries, 1]`` of the target ids.
        """
        inputs = [
            *self._history(),
            self._integers("items", 3),  # tokens, tokens to normalise over, frames
            self._integers("items", 3),  # first token, tokens, frames of the matrix
            self._integers(2),  # frames of the memory, width of the median filter
            self._floats("items", "queries", "aligned"),  # zeros
            self._integers(self.dimensions.n_text_layer, "heads"),  # alignment heads, or -1
            self._floats(1),  # their number
            self._integers("items", "queries", 1),  # targets
            self._integers(1),  # how many ids the probabilities are over
            self._integers(1),  # threads
        ]
        with new_graph("align", inputs, self.module) as graph:
            layers = Layers(graph, self.device, self.storage)
            sizes, matrix, numbers, sums, heads, count, targets, limit = (
                value.tensor for value in graph.inputs[len(self._history()) : -1]
            )
            memory = graph.inputs[5].tensor

            def watch(layer: int, queries: TensorValue) -> None:
                nonlocal sums
                values = [sums, queries, memory, heads, sizes, numbers, layers.index(layer)]
                sums = layers.kernel("alignment_weights", values, sums.shape)

            logits = self._project(layers, self._layers(graph, layers, watch))
            path = ("items", Dim("queries") + Dim("aligned"), 2)
            warped = layers.kernels(
                "time_warping",
                [sums, matrix, count],
                [self._integers(*path), self._integers("items")],
            )
            probabilities = layers.kernel(
                "probabilities", [logits, targets, limit], ["items", "queries", 1]
            )
            graph.output(*warped, probabilities)

    def _history(self) -> list[TensorType | BufferType]:
        """Inputs of a pass: tokens, positions, origins, windows, frames, memory, cache."""
        return [
            self._integers("items", "queries"),
            self._integers("rows"),
            self._integers("rows", self.dimensions.n_text_ctx),
            self._integers("items"),
            self._integers(1),
            self._floats(*memory_shape(self.dimensions, "windows")),
            BufferType(DType.float32, cache_shape(self.dimensions, "slots"), self.device),
        ]

    def _layers(
        self,
        graph: Graph,
        layers: Layers,
        watch: Callable[[int, TensorValue], None] | None = None,
    ) -> TensorValue:
        """Tokens to final states; `watch` sees every layer's cross-attention queries."""
        d = self.dimensions
        width = d.n_text_state
        tokens, positions, origins, windows, frames, memory = (v.tensor for v in graph.inputs[:6])
        cache = graph.inputs[6].buffer
        encodings = layers.weight("decoder/position_encodings/encodings", (d.n_text_ctx, width))
        x = layers.kernel(
            "embed",
            [tokens, positions, self._embeddings(layers), encodings],
            [*tokens.shape, width],
        )
        for index in range(d.n_text_layer):
            name = f"decoder/layer_{index}"
            x = layers.self_attention(
                x, f"{name}/self_attention", index, d.n_text_head, cache, origins, positions
            )
            hidden = layers.layer_norm(x, f"{name}/attention/layer_norm")
            queries = layers.linear(hidden, f"{name}/attention/linear_0", width)
            if watch is not None:
                watch(index, queries)
            inputs = [queries, memory, windows, frames, layers.index(index)]
            attended = layers.kernel("cross_attention", inputs, x.shape)
            x = layers.linear(attended, f"{name}/attention/linear_2", width, residual=x)
            x = layers.feed_forward(x, f"{name}/ffn")
        return layers.layer_norm(x, "decoder/layer_norm")

    def _project(self, layers: Layers, states: TensorValue) -> TensorValue:
        """Logits over the vocabulary, by the embeddings."""
        shape = [*states.shape[:-1], self.dimensions.n_vocab]
        return layers.kernel("project", [states, self._embeddings(layers)], shape)

    def _embeddings(self, layers: Layers) -> TensorValue:
        d = self.dimensions
        return layers.packed_weight("decoder/embeddings/weight", d.n_vocab, d.n_text_state)

    def _floats(self, *shape: DimLike) -> TensorType:
        return TensorType(DType.float32, list(shape), self.device)

    def _integers(self, *shape: DimLike) -> TensorType:
        return TensorType(DType.int32, list(shape), self.device)
