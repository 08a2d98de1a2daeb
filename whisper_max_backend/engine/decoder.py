"""The decoder at work: caches of a request, prefill, steps, probabilities, alignment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from max.driver import Buffer, Device
from max.dtype import DType

from .buffers import BufferPool
from .checkpoint import Dimensions
from .decoder_protocol import Candidates, Float32Array, Int32Array, Sampling
from .packing import PackedWeights, cache_shape, memory_shape
from .rules import Constraints
from .session import Model
from .storage import Storage


class DecoderState:
    """One request: the keys and values it has seen, and which row continues which.

    The cache row that a hypothesis writes to is its row number; ``origins[row, position]`` is the
    cache row that holds a position of its history. Reordering hypotheses rewrites this table only.
    """

    def __init__(self, windows: int, frames: int, n_text_ctx: int) -> None:
        self.memory: Buffer
        self.cache: Buffer
        self.suppressed: Buffer
        self.penalty: Buffer
        self.first_timestamp = 0
        self.frames = frames
        self.position = 0
        self.windows = np.arange(windows, dtype=np.int32)  # of every row
        self.origins = np.zeros((windows, n_text_ctx), np.int32)
        self.states: Buffer | None = None  # of the last prefill

    def reorder(self, rows: Int32Array) -> None:
        """Row r continues old row ``rows[r]``; there may be more or fewer rows than before."""
        self.windows = self.windows[rows]
        self.origins = self.origins[rows]

    def advance(self, tokens: int) -> Int32Array:
        """Makes room for new tokens of every row; returns where each row's first one goes."""
        rows, context = self.origins.shape
        end = self.position + tokens
        if end > context:
            raise RuntimeError(
                f"No position encodings are defined for positions >= {context}, but got position "
                f"{end - 1}: shorten the prompt or max_length"
            )
        self.origins[:, self.position : end] = np.arange(rows, dtype=np.int32)[:, None]
        positions = np.full(rows, self.position, np.int32)
        self.position = end
        return positions


class Decoder:
    """Runs the decoder's graphs. Requests of several threads each have a state of their own."""

    def __init__(
        self,
        models: Mapping[str, Model],
        weights: PackedWeights,
        storage: Storage,
        dimensions: Dimensions,
        device: Device,
        threads: int,
    ) -> None:
        self._models = models
        self._storage = storage
        self._dimensions = dimensions
        self._device = device
        self._pool = BufferPool(device)
        self._threads = self._buffer(np.array([threads], np.int32))
        self._width = self._buffer(np.array([dimensions.n_text_state], np.int32))
        self._vocabulary = self._buffer(np.zeros(dimensions.n_vocab, np.uint8))
        self._memory_weights = weights.memory.to(device)
        self._embeddings = weights.embeddings.to(device)
        self._weights = weights.decoder.to(device)

    @property
    def n_vocab(self) -> int:
        """Size of the vocabulary."""
        return self._dimensions.n_vocab

    def start(
        self,
        encoded: Buffer,
        *,
        suppressed: Sequence[int] = (),
        repetition_penalty: float = 1.0,
        rows_per_item: int = 1,
        first_timestamp: int = 0,
    ) -> DecoderState:
        """A state for the windows ``encoded [items, frames, n_audio_state]``.

        Args:
            encoded: The encoder's output, on this device.
            suppressed: Ids that are never candidates.
            repetition_penalty: Applied to ``Constraints.penalized``.
            rows_per_item: Most hypotheses that an item will have at once.
            first_timestamp: Id where the timestamps begin, for ``Constraints.check_timestamps``.
        """
        items, frames, _ = encoded.shape
        state = DecoderState(items, frames, self._dimensions.n_text_ctx)
        d = self._dimensions
        shape = memory_shape(d, self._storage.memory, items)
        state.memory = self._pool.lend(state, DType.uint8, shape)
        shape = cache_shape(d, items * rows_per_item)
        state.cache = self._pool.lend(state, DType.float32, shape)
        state.suppressed = self._buffer(np.asarray(suppressed, np.int32))
        state.penalty = self._buffer(np.array([repetition_penalty], np.float32))
        state.first_timestamp = first_timestamp
        self._models["remember"].execute(
            state.memory, encoded, self._memory_weights, self._width, self._threads
        )
        return state

    def prefill(self, state: DecoderState, tokens: Int32Array) -> None:
        """Appends ``tokens [rows, length]`` to the caches of all rows."""
        history = self._history(state, tokens, 1)
        (state.states,) = self._models["prefill"].execute(*history, self._threads)

    def prefill_probability(self, state: DecoderState, position: int, token: int) -> Float32Array:
        """Probability of `token` at a position of the last prefill, before any rule: ``[rows]``."""
        rows = len(state.windows)
        ids = np.full((rows, 1, 1), token, np.int32)
        return self._probabilities(state, position, ids, self.n_vocab)[:, 0]

    def step(
        self,
        state: DecoderState,
        tokens: Int32Array,
        scores: Float32Array,
        constraints: Constraints,
        beams: int,
        candidates: int,
        sampling: Sampling,
        return_logits: bool = False,
        watch: int = -1,
    ) -> Candidates:
        """Appends a token to every row and proposes continuations of every item.

        See `decoder_protocol.Decoder.step`.
        """
        rows = len(state.windows)
        ids, origins, values, watched, ruled = self._models["step"].execute(
            *self._history(state, tokens.reshape(rows, 1), beams),
            self._vocabulary,
            self._buffer(np.ascontiguousarray(scores, np.float32)),
            state.suppressed,
            self._buffer(constraints.ranges.reshape(rows, 4)),
            self._buffer(constraints.banned),
            self._buffer(constraints.penalized),
            self._buffer(constraints.check_timestamps),
            self._buffer(np.array([state.first_timestamp, watch], np.int32)),
            state.penalty,
            self._buffer(np.array([sampling.topk, sampling.seed], np.int32)),
            self._buffer(np.array([sampling.temperature], np.float32)),
            self._buffer(np.zeros(candidates, np.int32)),
            self._threads,
        )
        return Candidates(
            tokens=ids.to_numpy(),
            origins=origins.to_numpy(),
            scores=values.to_numpy(),
            logits=ruled.to_numpy().reshape(rows, -1) if return_logits else None,
            watched=watched.to_numpy() if watch >= 0 else None,
        )

    def language_probabilities(
        self, encoded: Buffer, sot: int, languages: Sequence[int]
    ) -> Float32Array:
        """Softmax over the language tokens after <|startoftranscript|>: ``[items, languages]``."""
        items = encoded.shape[0]
        state = self.start(encoded)
        self.prefill(state, np.full((items, 1), sot, np.int32))
        ids = np.broadcast_to(np.asarray(languages, np.int32), (items, 1, len(languages)))
        return self._probabilities(state, 0, ids, 0)

    def align(
        self,
        encoded: Buffer,
        tokens: Int32Array,
        lengths: Int32Array,
        frames: Int32Array,
        heads: Sequence[tuple[int, int]],
        start_length: int,
        median_filter_width: int,
        eot: int,
    ) -> tuple[list[list[tuple[int, int]]], Float32Array]:
        """Which encoder frames each token was spoken in.

        Args:
            encoded: ``[items, frames, n_audio_state]``.
            tokens: ``[items, T]``: start sequence, <|notimestamps|>, text, <|endoftext|>, padding.
            lengths: Tokens of each item.
            frames: Frames of each item that are not padding.
            heads: The alignment heads, as (layer, head).
            start_length: Tokens of the start sequence.
            median_filter_width: Of the filter over frames; odd.
            eot: Probabilities are over the ids below it.

        Returns:
            For each item the path as pairs (text index, frame), and the probability ``[items, T]``
            of ``tokens[t + 1]`` at t.
        """
        items, longest = tokens.shape
        widest = max(1, int(frames.max()))
        state = self.start(encoded)
        uniform = bool((frames == frames[0]).all())
        normalized = np.full_like(lengths, longest) if uniform else lengths
        rows = lengths - start_length - 1
        first = np.full_like(rows, start_length)
        targets = np.zeros((items, longest, 1), np.int32)
        targets[:, :-1, 0] = tokens[:, 1:]
        paths, counts, probabilities = self._models["align"].execute(
            *self._history(state, tokens, 1),
            self._vocabulary,
            self._buffer(np.stack([lengths, normalized, frames], 1).astype(np.int32)),
            self._buffer(np.stack([first, rows, frames], 1).astype(np.int32)),
            self._buffer(np.array([state.frames, median_filter_width], np.int32)),
            self._buffer(np.zeros(widest, np.int32)),
            self._buffer(np.array(sorted(heads), np.int32)),
            self._buffer(np.array([len(heads)], np.float32)),
            self._buffer(targets),
            self._buffer(np.array([eot], np.int32)),
            self._threads,
        )
        return (
            self._routes(paths.to_numpy(), counts.to_numpy()),
            probabilities.to_numpy()[:, :, 0],
        )

    @staticmethod
    def _routes(paths: np.ndarray, counts: np.ndarray) -> list[list[tuple[int, int]]]:
        """Paths ``[items, longest, 2]``, each cut to its length."""
        return [
            [(text, time) for text, time in path[:count].tolist()]
            for path, count in zip(paths, counts, strict=True)
        ]

    def _history(self, state: DecoderState, tokens: Int32Array, beams: int) -> list[Buffer]:
        """Inputs of a pass over new ``tokens [rows, length]``."""
        rows, length = tokens.shape
        positions = state.advance(length)
        return [
            self._buffer(tokens.reshape(rows // beams, beams * length)),
            self._buffer(positions),
            self._buffer(state.origins),
            self._buffer(np.ascontiguousarray(state.windows[::beams])),
            self._buffer(np.array([state.frames], np.int32)),
            state.memory,
            state.cache,
            self._embeddings,
            self._weights,
        ]

    def _probabilities(
        self, state: DecoderState, position: int, ids: Int32Array, limit: int
    ) -> Float32Array:
        assert state.states is not None
        (result,) = self._models["probabilities"].execute(
            state.states,
            self._buffer(np.array([position], np.int32)),
            self._buffer(np.ascontiguousarray(ids)),
            self._buffer(np.array([limit], np.int32)),
            self._embeddings,
            self._vocabulary,
            self._threads,
        )
        values: Float32Array = result.to_numpy()[:, 0]
        return values

    def _buffer(self, array: np.ndarray) -> Buffer:
        return Buffer.from_numpy(array).to(self._device)
