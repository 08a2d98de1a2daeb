"""The decoder on a CPU."""

from __future__ import annotations

import functools
from collections.abc import Hashable, Mapping, Sequence

import numpy as np
from max.driver import Buffer, Device
from max.dtype import DType

from ...system.cancellation import NEVER
from ..checkpoint.dimensions import Dimensions
from ..checkpoint.weight_dtypes import Storage
from ..compile.session import LoadedGraph
from ..search.protocol import Candidates, Float32Array, Int32Array
from ..search.rules import Constraints
from ..state.alignment_request import AlignmentRequest, Alignments
from ..state.decoder import Decoder
from ..state.decoder_state import DecoderState
from ..state.kv_cache import KVAllocation, KVLayout
from ..state.step_batch import (
    Prompt,
    Step,
    joined,
    joined_lookahead,
    keep_final_states,
    keep_steps_ahead,
    split_candidates,
)
from .graphs.signatures import ALIGN, CROSS_KV, PREFILL, PROBABILITIES, STEP
from .weights import PackedWeights, cross_kv_shape, kv_cache_shape

_MOST_FINE_ROWS = 8
"""Rows that half of the highest strip holds, which is AMX's (cpu/strips.mojo)."""


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
                cross_kv_shape(dimensions, storage.cross_kv, frames, windows),
            ),
            kv_cache=lambda slots: (
                DType.uint8,
                kv_cache_shape(dimensions, storage.kv_cache, slots),
            ),
            slot_axis=0,
        )
        super().__init__(graphs, dimensions, device, layout)
        self._threads = self._buffer(np.array([threads], np.int32))
        self._width = self._buffer(np.array([dimensions.n_text_state], np.int32))
        self._no_heads = self._buffer(np.empty((0, 2), np.int32))
        self._cross_kv_weights = weights.cross_kv.to(device)
        self._embeddings = weights.embeddings.to(device)
        self._weights = weights.decoder.to(device)

    def prompt_kind(self, prompt: Prompt) -> Hashable:
        """Each has its own: how fine the numbers of int8 are depends on how many rows there are."""
        return id(prompt.state)

    def prefill_together(self, prompts: Sequence[Prompt]) -> None:
        """Appends the prompts of requests, of one kind and with the same buffers."""
        new = self._new_tokens(
            [prompt.state for prompt in prompts],
            [prompt.tokens for prompt in prompts],
            [prompt.positions for prompt in prompts],
            1,
        )
        inputs = PREFILL.ordered(**new, threads=self._threads)
        (states,) = self._graphs["prefill"].execute(*inputs)
        keep_final_states(prompts, states)

    def kind(self, step: Step) -> Hashable:
        """What has to be equal for steps to be executed together."""
        state, request = step.state, step.request
        sampling, rules = request.sampling, state.rules
        # Rows that chance plays a part in are told apart by their number.
        drawn = id(state) if sampling.temperature > 0 and sampling.topk != 1 else None
        return (
            state.frames,
            _few_rows(state),
            request.beams,
            request.candidates,
            rules.repetition_penalty,
            request.watch,
            drawn,
            rules.suppressed.tobytes(),
            id(state) if request.attention is not None else None,
        )

    def step_together(self, steps: Sequence[Step]) -> list[Candidates]:
        """Executes the steps of one or several requests, of one kind and with the same buffers."""
        state, first = steps[0].state, steps[0].request
        rules, sampling = state.rules, first.sampling
        requests = [step.request for step in steps]
        constraints = Constraints.joined([request.constraints for request in requests])
        ahead = joined_lookahead(steps)
        attention = first.attention
        inputs = STEP.ordered(
            **self._new_tokens(
                [step.state for step in steps],
                [request.tokens for request in requests],
                [step.positions for step in steps],
                first.beams,
            ),
            scores=self._buffer(joined([request.scores for request in requests])),
            suppressed=self._buffer(rules.suppressed),
            ranges=self._buffer(constraints.ranges.reshape(-1, 4)),
            banned=self._buffer(constraints.banned),
            penalized=self._buffer(constraints.penalized),
            checks=self._buffer(constraints.check_timestamps),
            first_timestamp=_integer(rules.first_timestamp),
            watched_id=_integer(first.watch),
            penalty=_float(rules.repetition_penalty),
            top_k=_integer(sampling.topk),
            seed=_integer(sampling.seed),
            temperature=_float(sampling.temperature),
            eot=_integer(ahead.eot),
            timed=_integer(ahead.timed),
            summed=_integer(ahead.summed),
            remaining=self._buffer(ahead.remaining),
            last_timestamps=self._buffer(ahead.last_timestamps),
            heads=self._no_heads if attention is None else self._buffer(attention.heads),
            content=_integer(attention.content if attention else 0),
            until=_integer(attention.until if attention else 0),
            request_rows=_integer(_few_rows(state)),
            sizes=_sizes(ahead.steps, first.candidates, self.n_vocab),
            stop=Buffer.from_numpy((state.stop if len(steps) == 1 else NEVER).array),
            threads=self._threads,
        )
        ids, origins, values, fed, made, watched, ruled, attended = self._graphs["step"].execute(
            *inputs
        )
        of_steps = zip(
            *(result.to_numpy() for result in (ids, origins, values, attended)), strict=True
        )
        proposed = [
            Candidates(tokens, rows, scores, attended=frames if attention else None)
            for tokens, rows, scores, frames in of_steps
        ][: int(made.to_numpy()[0])]
        if len(proposed) > 1:
            keep_steps_ahead(steps, fed.to_numpy(), proposed[1:])
        return split_candidates(steps, proposed[0], watched, ruled)

    def align(self, encoded: Buffer, request: AlignmentRequest) -> Alignments:
        """See `Decoder.align`."""
        state = self._alone(encoded)
        positions = state.advance(request.tokens.shape[1])
        inputs = ALIGN.ordered(
            **self._new_tokens([state], [request.tokens], [positions], 1),
            heads=self._buffer(request.sorted_heads),
            weight_sizes=self._buffer(request.weight_sizes),
            median_width=_integer(request.median_filter_width),
            matrices=self._buffer(request.matrices),
            head_count=_float(len(request.heads)),
            targets=self._buffer(request.targets),
            limit=_integer(request.eot),
            sizes=_sizes(request.most_frames, self.n_vocab),
            threads=self._threads,
        )
        paths, lengths, probabilities = self._graphs["align"].execute(*inputs)
        return Alignments.of(paths.to_numpy(), lengths.to_numpy(), probabilities.to_numpy())

    def _fill_cross_kv(self, allocation: KVAllocation, encoded: Buffer) -> None:
        inputs = CROSS_KV.ordered(
            cross_kv=allocation.buffers.cross_kv,
            windows=self._buffer(allocation.windows),
            states=encoded,
            weights=self._cross_kv_weights,
            text_width=self._width,
            threads=self._threads,
        )
        self._graphs["cross_kv"].execute(*inputs)

    def _new_tokens(
        self,
        states: Sequence[DecoderState],
        tokens: Sequence[Int32Array],
        positions: Sequence[Int32Array],
        beams: int,
    ) -> dict[str, Buffer]:
        """Inputs of a pass over new tokens of each state, ``[rows, length]`` or one a row."""
        first = states[0]
        new = joined(tokens)
        buffers = first.allocation.buffers
        windows = np.ascontiguousarray(joined([state.windows[::beams] for state in states]))
        return {
            "tokens": self._buffer(new.reshape(len(new) // beams, -1)),
            "positions": self._buffer(joined(positions)),
            "slot_table": self._buffer(joined([state.slot_table for state in states])),
            "windows": self._buffer(windows),
            "frames": _integer(first.frames),
            "cross_kv": buffers.cross_kv,
            "kv_cache": buffers.kv_cache,
            "embeddings": self._embeddings,
            "weights": self._weights,
        }

    def _probabilities(
        self, state: DecoderState, position: int, ids: Int32Array, limit: int
    ) -> Float32Array:
        assert state.prefill_states is not None
        inputs = PROBABILITIES.ordered(
            states=state.prefill_states,
            index=_integer(position),
            ids=self._buffer(np.ascontiguousarray(ids)),
            limit=_integer(limit),
            embeddings=self._embeddings,
            sizes=_sizes(self.n_vocab),
            threads=self._threads,
        )
        (result,) = self._graphs["probabilities"].execute(*inputs)
        values: Float32Array = result.to_numpy()[:, 0]
        return values

    def _buffer(self, array: np.ndarray) -> Buffer:
        return Buffer.from_numpy(array).to(self._device)


def _few_rows(state: DecoderState) -> int:
    """The most rows of a request, or 0 where no processor's kernels give them 16 bits in int8."""
    rows = len(state.allocation.slots)
    return rows if rows <= _MOST_FINE_ROWS else 0


@functools.lru_cache(maxsize=256)
def _integer(value: int) -> Buffer:
    """An int32 number, which most steps have in common: making one takes longer than finding it."""
    return Buffer.from_numpy(np.array([value], np.int32))


@functools.lru_cache(maxsize=256)
def _float(value: float) -> Buffer:
    """A float32 number, the same."""
    return Buffer.from_numpy(np.array([value], np.float32))


@functools.lru_cache(maxsize=256)
def _sizes(*dimensions: int) -> Buffer:
    """An empty buffer that tells a graph the sizes of its results."""
    return Buffer.from_numpy(np.empty((0, *dimensions), np.uint8))
