"""The decoder on a CPU."""

from __future__ import annotations

import functools
from collections.abc import Hashable, Mapping, Sequence

import numpy as np
from max.driver import Buffer, Device
from max.dtype import DType

from ..checkpoint.dimensions import Dimensions
from ..checkpoint.dtypes import Storage
from ..compile.session import LoadedGraph
from ..search.protocol import Candidates, Float32Array, Int32Array
from ..search.rules import Constraints
from ..state.alignment_request import AlignmentRequest, Alignments
from ..state.decoder import Decoder
from ..state.decoder_state import DecoderState
from ..state.kv_cache import KVLayout
from ..state.step_batch import Step, joined, joined_lookahead, keep_steps_ahead, split_candidates
from .weights import PackedWeights, cache_shape, memory_shape


class CPUDecoder(Decoder):
    """Runs the decoder's graphs on the CPU, each of which is a whole network in one kernel."""

    # A call takes Python almost a millisecond; of more steps that is little.
    steps_ahead = 32

    def __init__(
        self,
        graphs: Mapping[str, LoadedGraph],
        weights: PackedWeights,
        storage: Storage,
        dimensions: Dimensions,
        device: Device,
        threads: int,
    ) -> None:
        layout = KVLayout(
            device,
            cross_kv=lambda frames, windows: (
                DType.uint8,
                memory_shape(dimensions, storage.memory, frames, windows),
            ),
            kv_cache=lambda slots: (DType.float32, cache_shape(dimensions, slots)),
            slot_axis=0,
        )
        super().__init__(graphs, dimensions, device, layout)
        self._threads = self._buffer(np.array([threads], np.int32))
        self._width = self._buffer(np.array([dimensions.n_text_state], np.int32))
        self._vocabulary = self._buffer(np.zeros(dimensions.n_vocab, np.uint8))
        self._memory_weights = weights.memory.to(device)
        self._embeddings = weights.embeddings.to(device)
        self._weights = weights.decoder.to(device)

    def prefill(self, state: DecoderState, tokens: Int32Array) -> None:
        """Appends ``tokens [rows, length]`` to the caches of all rows."""
        history = self._history([state], [tokens], [state.advance(tokens.shape[1])], 1)
        (state.prefill_states,) = self._graphs["prefill"].execute(*history, self._threads)

    def kind(self, step: Step) -> Hashable:
        """What has to be equal for steps to be executed together."""
        state, request = step.state, step.request
        sampling, rules = request.sampling, state.rules
        # Rows that chance plays a part in are told apart by their number.
        drawn = id(state) if sampling.temperature > 0 and sampling.topk != 1 else None
        return (
            state.frames,
            request.beams,
            request.candidates,
            rules.repetition_penalty,
            request.watch,
            drawn,
            rules.suppressed.tobytes(),
        )

    def step_together(self, steps: Sequence[Step]) -> list[Candidates]:
        """Executes the steps of one or several requests, of one kind and with the same buffers."""
        state, first = steps[0].state, steps[0].request
        rules, sampling = state.rules, first.sampling
        requests = [step.request for step in steps]
        constraints = Constraints.joined([request.constraints for request in requests])
        ahead = joined_lookahead(steps)
        ids, origins, values, fed, made, watched, ruled = self._graphs["step"].execute(
            *self._history(
                [step.state for step in steps],
                [request.tokens for request in requests],
                [step.positions for step in steps],
                first.beams,
            ),
            self._vocabulary,
            self._buffer(joined([request.scores for request in requests])),
            self._buffer(rules.suppressed),
            self._buffer(constraints.ranges.reshape(-1, 4)),
            self._buffer(constraints.banned),
            self._buffer(constraints.penalized),
            self._buffer(constraints.check_timestamps),
            _integers(rules.first_timestamp, first.watch),
            _floats(rules.repetition_penalty),
            _integers(sampling.topk, sampling.seed),
            _floats(sampling.temperature),
            _integers(*[0] * first.candidates),
            _integers(*[0] * ahead.steps),
            _integers(ahead.eot, ahead.timed, ahead.summed),
            self._buffer(ahead.remaining),
            self._buffer(ahead.last_timestamps),
            self._threads,
        )
        proposed = [
            Candidates(*of_step)
            for of_step in zip(ids.to_numpy(), origins.to_numpy(), values.to_numpy(), strict=True)
        ][: int(made.to_numpy()[0])]
        if len(proposed) > 1:
            keep_steps_ahead(steps, fed.to_numpy(), proposed[1:])
        return split_candidates(steps, proposed[0], watched, ruled)

    def align(self, encoded: Buffer, request: AlignmentRequest) -> Alignments:
        """See `Decoder.align`."""
        state = self._alone(encoded)
        positions = state.advance(request.tokens.shape[1])
        paths, lengths, probabilities = self._graphs["align"].execute(
            *self._history([state], [request.tokens], [positions], 1),
            self._vocabulary,
            self._buffer(request.weight_sizes),
            self._buffer(request.matrices),
            _integers(state.frames, request.median_filter_width),
            self._buffer(np.zeros(request.most_frames, np.int32)),
            self._buffer(request.sorted_heads),
            _floats(len(request.heads)),
            self._buffer(request.targets),
            _integers(request.eot),
            self._threads,
        )
        return Alignments.of(paths.to_numpy(), lengths.to_numpy(), probabilities.to_numpy())

    def _fill_cross_kv(self, cross_kv: Buffer, encoded: Buffer) -> None:
        self._graphs["remember"].execute(
            cross_kv, encoded, self._memory_weights, self._width, self._threads
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
        buffers = first.allocation.buffers
        return [
            self._buffer(new.reshape(len(new) // beams, -1)),
            self._buffer(joined(positions)),
            self._buffer(joined([state.slot_table for state in states])),
            self._buffer(np.ascontiguousarray(joined([s.windows[::beams] for s in states]))),
            _integers(first.frames),
            buffers.cross_kv,
            buffers.kv_cache,
            self._embeddings,
            self._weights,
        ]

    def _probabilities(
        self, state: DecoderState, position: int, ids: Int32Array, limit: int
    ) -> Float32Array:
        assert state.prefill_states is not None
        (result,) = self._graphs["probabilities"].execute(
            state.prefill_states,
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
