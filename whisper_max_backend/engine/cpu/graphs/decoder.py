"""The text decoder, and what is read off its logits.

Symbolic dimensions: ``items`` windows in the batch, ``rows`` hypotheses (items * beams),
``queries`` the new tokens of all beams of an item, beam by beam.
"""

from __future__ import annotations

from max.dtype import DType
from max.graph import BufferType, DeviceRef, Dim, Graph, Module, TensorType, TensorValue
from max.graph.dim import DimLike

from ...graphs.ops import Kernels, new_graph


class DecoderGraphs:
    """Adds the decoder's graphs to a module.

    Args:
        module: Receives them.
        device: Where they run.
        storage: Type of the matrices that every step reads: a step's time is their bytes.
        memory_type: Type of the cross-attention keys and values.
    """

    def __init__(
        self, module: Module, device: DeviceRef, storage: DType, memory_type: DType
    ) -> None:
        self.module = module
        self.device = device
        self.storage = storage
        self.memory_type = memory_type

    def add_all(self) -> None:
        """Every graph of the decoder."""
        self.add_prefill()
        self.add_step()
        self.add_probabilities()
        self.add_align()

    def add_prefill(self) -> None:
        """``prefill``: new tokens join the cache; their final states come back."""
        with new_graph("prefill", [*self._history(), self._integers(1)], self.module) as graph:
            graph.output(self._layers(graph, Kernels(graph, self.device))[0])

    def add_step(self) -> None:
        """``step``: the last token of every row, the rules, and the candidates after it.

        With steps ahead, the candidates after those as well. Returns ids, origins, scores
        ``[steps, items, candidates]``, what each step's rows were followed by
        ``[steps, rows, 2]``, the number of steps made ``[1]``, watched ``[rows]`` and the logits
        after the rules ``[items, queries, vocabulary]``.
        """
        inputs = [
            *self._history(),
            self._vocabulary(),
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
            self._integers("steps"),  # likewise
            self._integers(3),  # <|endoftext|>, whether timestamps have rules, scores are sums
            self._integers("items"),  # hypotheses that may still end
            self._integers("rows", 2),  # timestamps of the histories
            self._integers(1),  # threads
        ]
        with new_graph("step", inputs, self.module) as graph:
            kernels = Kernels(graph, self.device)
            history = len(self._history())
            values = [*graph.inputs[:history], *graph.inputs[history + 1 : -1]]
            shape = ("steps", "items", "candidates")
            graph.output(
                *kernels.call(
                    "step",
                    [v.buffer if isinstance(v.type, BufferType) else v.tensor for v in values],
                    [
                        self._integers(*shape),
                        self._integers(*shape),
                        self._floats(*shape),
                        self._integers("steps", "rows", 2),
                        self._integers(1),
                        self._floats("rows"),
                        self._floats("items", "queries", "vocabulary"),
                    ],
                    {"storage": self.storage, "memory_type": self.memory_type},
                )
            )

    def add_probabilities(self) -> None:
        """``probabilities``: of chosen ids at one of the tokens of a prefill.

        ``states [items, queries, width]``, ``index [1]``, ``ids [items, 1, count]`` and
        ``limit [1]`` give ``[items, 1, count]``.
        """
        inputs = [
            self._floats("items", "queries", "width"),
            self._integers(1),
            self._integers("items", 1, "count"),
            self._integers(1),
            self._bytes("embeddings"),
            self._vocabulary(),
            self._integers(1),  # threads
        ]
        with new_graph("probabilities", inputs, self.module) as graph:
            kernels = Kernels(graph, self.device)
            states, index, ids, limit, embeddings = (value.tensor for value in graph.inputs[:5])
            one = self._floats("items", 1, "width")
            (taken,) = kernels.call("take_token", [states, index], [one])
            (logits,) = kernels.call(
                "project",
                [taken, embeddings],
                [self._floats("items", 1, "vocabulary")],
                {"storage": self.storage},
            )
            result = self._floats("items", 1, "count")
            graph.output(*kernels.call("probabilities", [logits, ids, limit], [result]))

    def add_align(self) -> None:
        """``align``: when the tokens of a transcript were spoken.

        Returns paths ``[items, queries + aligned, 2]``, their lengths ``[items]`` and the
        probabilities ``[items, queries, 1]`` of the target ids.
        """
        history = self._history()
        inputs = [
            *history,
            self._vocabulary(),
            self._integers("items", 3),  # tokens, tokens to normalise over, frames
            self._integers("items", 3),  # first token, tokens, frames of the matrix
            self._integers(2),  # frames of the memory, width of the median filter
            self._integers("aligned"),  # only its length counts: the most frames of an item
            self._integers("chosen", 2),  # alignment heads: layer, head
            self._floats(1),  # their number
            self._integers("items", "queries", 1),  # targets
            self._integers(1),  # how many ids the probabilities are over
            self._integers(1),  # threads
        ]
        with new_graph("align", inputs, self.module) as graph:
            kernels = Kernels(graph, self.device)
            sizes, matrix, numbers, _, heads, count, targets, limit = (
                value.tensor for value in graph.inputs[len(history) + 1 : -1]
            )
            states, queries = self._layers(graph, kernels, watch=True)
            memory = graph.inputs[5].tensor
            (sums,) = kernels.call(
                "alignment_weights",
                [queries, memory, heads, sizes, numbers],
                [self._floats("items", "queries", "aligned")],
                {"memory_type": self.memory_type},
            )
            path = ("items", Dim("queries") + Dim("aligned"), 2)
            warped = kernels.call(
                "time_warping",
                [sums, matrix, count],
                [self._integers(*path), self._integers("items")],
            )
            (logits,) = kernels.call(
                "project",
                [states, graph.inputs[7].tensor],
                [self._floats("items", "queries", "vocabulary")],
                {"storage": self.storage},
            )
            probabilities = kernels.call(
                "probabilities",
                [logits, targets, limit],
                [self._floats("items", "queries", 1)],
            )
            graph.output(*warped, *probabilities)

    def _history(self) -> list[TensorType | BufferType]:
        """Inputs of a pass: tokens, positions, origins, windows, frames, memory, cache, weights."""
        cache = ["slots", "layers", 2, "context", "width"]
        return [
            self._integers("items", "queries"),
            self._integers("rows"),
            self._integers("rows", "context"),
            self._integers("items"),
            self._integers(1),
            TensorType(DType.uint8, ["layers", "windows", "heads", "head_bytes"], self.device),
            BufferType(DType.float32, cache, self.device),
            self._bytes("embeddings"),
            self._bytes("parameters"),
        ]

    def _layers(self, graph: Graph, kernels: Kernels, watch: bool = False) -> list[TensorValue]:
        """Tokens to final states, and with `watch` every layer's cross-attention queries."""
        tokens, positions, origins, windows, frames, memory = (v.tensor for v in graph.inputs[:6])
        cache = graph.inputs[6].buffer
        embeddings, parameters = graph.inputs[7].tensor, graph.inputs[8].tensor
        return kernels.call(
            "decoder",
            [
                tokens,
                positions,
                origins,
                windows,
                frames,
                memory,
                cache,
                embeddings,
                parameters,
            ],
            [
                self._floats("items", "queries", "width"),
                self._floats("layers" if watch else 0, "items", "queries", "width"),
            ],
            {"storage": self.storage, "memory_type": self.memory_type},
        )

    def _vocabulary(self) -> TensorType:
        """An input of which only the length counts: the size of the vocabulary."""
        return self._bytes("vocabulary")

    def _bytes(self, size: DimLike) -> TensorType:
        return TensorType(DType.uint8, [size], self.device)

    def _floats(self, *shape: DimLike) -> TensorType:
        return TensorType(DType.float32, list(shape), self.device)

    def _integers(self, *shape: DimLike) -> TensorType:
        return TensorType(DType.int32, list(shape), self.device)
