"""The text decoder, and what is read off its logits; `signatures` says what its graphs take."""

from __future__ import annotations

from max.graph import BufferValue, DeviceRef, Dim, Module, TensorValue
from max.graph.dim import DimLike

from ...checkpoint.weight_dtypes import Storage
from ...graphs.ops import Values, new_graph
from .kernels import CPUKernels
from .signatures import ALIGN, PREFILL, PROBABILITIES, STEP, TOKENS


class DecoderGraphs:
    """Adds the decoder's graphs to a module.

    Args:
        module: Receives them.
        device: Where they run.
        storage: Types of the matrices and of keys and values: a step's time is their bytes.
    """

    def __init__(self, module: Module, device: DeviceRef, storage: Storage) -> None:
        self.module = module
        self.device = device
        self.storage = storage
        self.types = {
            "storage": storage.decoder,
            "kv_type": storage.cross_kv,
            "cache_type": storage.kv_cache,
        }

    def add_all(self) -> None:
        """Every graph of the decoder."""
        self.add_prefill()
        self.add_step()
        self.add_probabilities()
        self.add_align()

    def add_prefill(self) -> None:
        """``prefill``: new tokens join the cache; their final states come back."""
        with new_graph("prefill", PREFILL.types(self.device), self.module) as graph:
            kernels = CPUKernels(graph, self.device)
            graph.output(self._layers(kernels, PREFILL.values(graph))[0])

    def add_step(self) -> None:
        """``step``: the last token of every row, the rules, and the candidates after it.

        With steps ahead, the candidates after those as well. Returns ids, origins, scores
        ``[steps, items, candidates]``, what each step's rows were followed by
        ``[steps, rows, 2]``, the number of steps made ``[1]``, watched ``[rows]``, the logits
        after the rules ``[items, queries, vocabulary]`` and the frames attended to
        ``[steps, rows]``.
        """
        with new_graph("step", STEP.types(self.device), self.module) as graph:
            kernels = CPUKernels(graph, self.device)
            shape = ("steps", "items", "candidates")
            graph.output(
                *kernels.call(
                    "step",
                    STEP.values(graph),
                    [
                        kernels.integers(*shape),
                        kernels.integers(*shape),
                        kernels.floats(*shape),
                        kernels.integers("steps", "rows", 2),
                        kernels.integers(1),
                        kernels.floats("rows"),
                        kernels.floats("items", "queries", "vocabulary"),
                        kernels.integers("steps", "rows"),
                    ],
                    self.types,
                )
            )

    def add_probabilities(self) -> None:
        """``probabilities``: ``[items, 1, count]`` of the ids at one of the tokens of a prefill."""
        with new_graph("probabilities", PROBABILITIES.types(self.device), self.module) as graph:
            kernels = CPUKernels(graph, self.device)
            values = PROBABILITIES.values(graph)
            (taken,) = kernels.call(
                "take_token",
                {name: values[name] for name in ("states", "index")},
                [kernels.floats("items", 1, "width")],
            )
            logits = self._logits(kernels, taken, values, rows=1)
            graph.output(
                self._probabilities(kernels, logits, values["ids"], values, ("items", 1, "count"))
            )

    def add_align(self) -> None:
        """``align``: when the tokens of a transcript were spoken.

        Returns paths ``[items, queries + aligned, 2]``, their lengths ``[items]`` and the
        probabilities ``[items, queries, 1]`` of the target ids.
        """
        with new_graph("align", ALIGN.types(self.device), self.module) as graph:
            kernels = CPUKernels(graph, self.device)
            values = ALIGN.values(graph)
            states, queries = self._layers(kernels, values, keep_queries=True)
            taken = ("cross_kv", "heads", "weight_sizes", "frames", "median_width")
            (sums,) = kernels.call(
                "alignment_weights",
                {"queries": queries} | {name: values[name] for name in taken},
                [kernels.floats("items", "queries", "aligned")],
                {"kv_type": self.storage.cross_kv},
            )
            warped = kernels.call(
                "dtw",
                {"sums": sums} | {name: values[name] for name in ("matrices", "head_count")},
                [
                    kernels.integers("items", Dim("queries") + Dim("aligned"), 2),
                    kernels.integers("items"),
                ],
            )
            logits = self._logits(kernels, states, values)
            shape = ("items", "queries", 1)
            of_targets = self._probabilities(kernels, logits, values["targets"], values, shape)
            graph.output(*warped, of_targets)

    def _layers(
        self, kernels: CPUKernels, values: Values, keep_queries: bool = False
    ) -> list[TensorValue]:
        """Tokens to final states, and, if asked for, every layer's cross-attention queries."""
        return kernels.call(
            "decoder",
            {one.name: values[one.name] for one in TOKENS},
            [
                kernels.floats("items", "queries", "width"),
                kernels.floats("layers" if keep_queries else 0, "items", "queries", "width"),
            ],
            self.types,
        )

    def _logits(
        self, kernels: CPUKernels, states: TensorValue, values: Values, rows: DimLike = "queries"
    ) -> TensorValue:
        """Of some states over the vocabulary."""
        (logits,) = kernels.call(
            "logits",
            {"states": states, "embeddings": values["embeddings"]},
            [kernels.floats("items", rows, "vocabulary")],
            {"storage": self.storage.decoder},
        )
        return logits

    def _probabilities(
        self,
        kernels: CPUKernels,
        logits: TensorValue,
        ids: TensorValue | BufferValue,
        values: Values,
        shape: tuple[DimLike, ...],
    ) -> TensorValue:
        """Of ids of a `shape`, over the first ids as far as the limit."""
        (result,) = kernels.call(
            "probabilities",
            {"logits": logits, "ids": ids, "limit": values["limit"]},
            [kernels.floats(*shape)],
        )
        return result
