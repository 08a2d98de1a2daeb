"""The decoder at work: caches of a request, prefill, steps, probabilities, alignment."""

from __future__ import annotations

import functools
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from max.driver import Buffer, Device
from max.dtype import DType

from ..checkpoint.dtypes import Storage
from ..checkpoint.load import Dimensions
from ..compile.session import Model
from ..search.protocol import Ahead, Candidates, Float32Array, Int32Array, Sampling
from ..search.rules import Constraints
from ..state.decoder_state import DecoderState, Step, foresee, joined, joined_ahead, shared_out
from ..state.kv_cache import Caches, Layout, PrivateCaches
from .weights import PackedWeights, cache_shape, memory_shape


class Decoder:
    """Runs the decoder's graphs. Requests of several threads each have a state of their own."""

    # A call takes Python almost a millisecond; of more steps that is little.
    steps_ahead = 32

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
        d = dimensions
        self.layout = Layout(
            device,
            memory=lambda frames, windows: (
                DType.uint8,
                memory_shape(d, storage.memory, frames, windows),
            ),
            cache=lambda slots: (DType.float32, cache_shape(d, slots)),
            slot_axis=0,
        )
        self._private = PrivateCaches(self.layout)
        self.caches: Caches = self._private
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
        part = self.caches.take(frames, items, items * rows_per_item)
        state = DecoderState(part, frames, self._dimensions.n_text_ctx)
        state.suppressed = np.asarray(suppressed, np.int32)
        state.penalty = repetition_penalty
        state.first_timestamp = first_timestamp
        try:
            if part.has_all_windows:
                self._remember(part.room.memory, encoded)
                return state
            for index in range(items):
                window = self.layout.new_memory(frames, 1)
                self._remember(window, encoded[index : index + 1, :, :])
                part.keep(index, window)
        except BaseException:
            self.finish(state)
            raise
        return state

    def finish(self, state: DecoderState) -> None:
        """The request is done: what it had of the caches is for others."""
        self.caches.give(state.part)

    def prefill(self, state: DecoderState, tokens: Int32Array) -> None:
        """Appends ``tokens [rows, length]`` to the caches of all rows."""
        history = self._history([state], [tokens], [state.advance(tokens.shape[1])], 1)
        (state.states,) = self._models["prefill"].execute(*history, self._threads)

    def prefill_probability(self, state: DecoderState, position: int, token: int) -> Float32Array:
        """Probability of `token` at a position of the last prefill, before any rule: ``[rows]``."""
        rows = len(state.windows)
        ids = np.full((rows, 1, 1), token, np.int32)
        return self._probabilities(state, position, ids, self.n_vocab)[:, 0]

    def step(self, state: DecoderState, *asked: Any, **options: Any) -> Candidates:
        """Appends a token to every row and proposes continuations of every item.

        See `decoder_protocol.Decoder.step`.
        """
        return self.step_together([self.next_step(state, *asked, **options)])[0]

    def next_step(
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
        ahead: Ahead | None = None,
    ) -> Step:
        """The step that `step` would execute; the state advances.

        Raises:
            RuntimeError: There is no position left.
        """
        scores = np.ascontiguousarray(scores, np.float32)
        return Step(
            state,
            tokens,
            state.advance(1),
            scores,
            constraints,
            beams,
            candidates,
            sampling,
            return_logits,
            watch,
            ahead,
        )

    def kind(self, step: Step) -> Hashable:
        """What has to be equal for steps to be executed together."""
        state, sampling = step.state, step.sampling
        # Rows that chance plays a part in are told apart by their number.
        drawn = id(state) if sampling.temperature > 0 and sampling.topk != 1 else None
        numbers = (state.frames, step.beams, step.candidates, state.penalty, step.watch, drawn)
        return *numbers, state.suppressed.tobytes()

    def step_together(self, steps: Sequence[Step]) -> list[Candidates]:
        """Executes the steps of one or several requests, of one kind and in the same room."""
        first = steps[0]
        state, sampling = first.state, first.sampling
        constraints = Constraints.joined([step.constraints for step in steps])
        ahead = joined_ahead(steps)
        ids, origins, values, fed, made, watched, ruled = self._models["step"].execute(
            *self._history(
                [step.state for step in steps],
                [step.tokens for step in steps],
                [step.positions for step in steps],
                first.beams,
            ),
            self._vocabulary,
            self._buffer(joined([step.scores for step in steps])),
            self._buffer(state.suppressed),
            self._buffer(constraints.ranges.reshape(-1, 4)),
            self._buffer(constraints.banned),
            self._buffer(constraints.penalized),
            self._buffer(constraints.check_timestamps),
            _integers(state.first_timestamp, first.watch),
            _floats(state.penalty),
            _integers(sampling.topk, sampling.seed),
            _floats(sampling.temperature),
            _integers(*[0] * first.candidates),
            _integers(*[0] * ahead.steps),
            _integers(ahead.eot, ahead.timed, ahead.summed),
            self._buffer(ahead.remaining),
            self._buffer(ahead.stamps),
            self._threads,
        )
        proposed = [
            Candidates(*of_step)
            for of_step in zip(ids.to_numpy(), origins.to_numpy(), values.to_numpy(), strict=True)
        ][: int(made.to_numpy()[0])]
        if len(proposed) > 1:
            foresee(steps, fed.to_numpy(), proposed[1:])
        return shared_out(steps, proposed[0], watched, ruled)

    def language_probabilities(
        self, encoded: Buffer, sot: int, languages: Sequence[int]
    ) -> Float32Array:
        """Softmax over the language tokens after <|startoftranscript|>: ``[items, languages]``."""
        items = encoded.shape[0]
        ids = np.broadcast_to(np.asarray(languages, np.int32), (items, 1, len(languages)))
        state = self._alone(encoded)
        self.prefill(state, np.full((items, 1), sot, np.int32))
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
        uniform = bool((frames == frames[0]).all())
        normalized = np.full_like(lengths, longest) if uniform else lengths
        rows = lengths - start_length - 1
        first = np.full_like(rows, start_length)
        targets = np.zeros((items, longest, 1), np.int32)
        targets[:, :-1, 0] = tokens[:, 1:]
        state = self._alone(encoded)
        paths, counts, probabilities = self._models["align"].execute(
            *self._history([state], [tokens], [state.advance(longest)], 1),
            self._vocabulary,
            self._buffer(np.stack([lengths, normalized, frames], 1).astype(np.int32)),
            self._buffer(np.stack([first, rows, frames], 1).astype(np.int32)),
            _integers(state.frames, median_filter_width),
            self._buffer(np.zeros(widest, np.int32)),
            self._buffer(np.array(sorted(heads), np.int32)),
            _floats(len(heads)),
            self._buffer(targets),
            _integers(eot),
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

    def _alone(self, encoded: Buffer) -> DecoderState:
        """A state for one pass, in a room of its own: alignment reads all of the memory."""
        items, frames, _ = encoded.shape
        part = self._private.take(frames, items, items)
        self._remember(part.room.memory, encoded)
        return DecoderState(part, frames, self._dimensions.n_text_ctx)

    def _remember(self, memory: Buffer, encoded: Buffer) -> None:
        """Fills the memory of windows from their encoder output."""
        self._models["remember"].execute(
            memory, encoded, self._memory_weights, self._width, self._threads
        )

    def _history(
        self,
        states: Sequence[DecoderState],
        tokens: Sequence[Int32Array],
        positions: Sequence[Int32Array],
        beams: int,
    ) -> list[Buffer]:
        """Inputs of a pass over new tokens of each state, ``[rows, length]`` or one a row."""
        first = states[0]
        new = joined(tokens)
        room = first.part.room
        return [
            self._buffer(new.reshape(len(new) // beams, -1)),
            self._buffer(joined(positions)),
            self._buffer(joined([state.origins for state in states])),
            self._buffer(np.ascontiguousarray(joined([s.windows[::beams] for s in states]))),
            _integers(first.frames),
            room.memory,
            room.cache,
            self._embeddings,
            self._weights,
        ]

    def _probabilities(
        self, state: DecoderState, position: int, ids: Int32Array, limit: int
    ) -> Float32Array:
        assert state.states is not None
        (result,) = self._models["probabilities"].execute(
            state.states,
            _integers(position),
            self._buffer(np.ascontiguousarray(ids)),
            _integers(limit),
            self._embeddings,
            self._vocabulary,
            self._threads,
        )
        values: Float32Array = result.to_numpy()[:, 0]
        return values

    def _buffer(self, array: np.ndarray) -> Buffer:
        return Buffer.from_numpy(array).to(self._device)


@functools.lru_cache(maxsize=256)
def _integers(*values: int) -> Buffer:
    """int32 numbers, which most steps have in common: making one takes longer than finding it."""
    return Buffer.from_numpy(np.array(values, np.int32))


@functools.lru_cache(maxsize=256)
def _floats(*values: float) -> Buffer:
    """float32 numbers, the same."""
    return Buffer.from_numpy(np.array(values, np.float32))
