"""The decoder on a GPU."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Mapping, Sequence

import numpy as np
from max.driver import Buffer, Device
from max.dtype import DType

from ..checkpoint.dimensions import Dimensions
from ..compile.session import LoadedGraph
from ..cpu.graphs.signatures import DTW
from ..search.protocol import Candidates, Float32Array, Int32Array, StepRequest
from ..search.rules import stacked
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
from .captured_graphs import CapturedGraphs
from .graphs.layers import FEW_ROWS
from .graphs.signatures import LOOKAHEAD, Signatures
from .staging import parts, staged
from .steps_ahead import StepsAhead
from .weights import GPUWeights

_LOOKAHEAD = {one.name for one in LOOKAHEAD}
_SHORT = 4
"""Tokens of a prompt without text. Prompts of other lengths are not worth capturing."""


class GPUDecoder(Decoder):
    """Runs the decoder's graphs on a GPU.

    What a step needs goes up in one piece, and a few numbers an item come back. Where it is plain
    how a search goes on, they come back of several steps: the device does not wait for the host.
    """

    steps_ahead = 8

    def __init__(
        self,
        graphs: Mapping[str, LoadedGraph],
        signatures: Signatures,
        weights: GPUWeights,
        dimensions: Dimensions,
        device: Device,
        dtype: DType,
    ) -> None:
        d = dimensions
        layout = KVLayout(
            device,
            cross_kv=lambda frames, windows: (
                dtype,
                (d.n_text_layer, windows, frames, 2 * d.n_text_state),
            ),
            kv_cache=lambda slots: (
                dtype,
                (d.n_text_layer, 2, slots, d.n_text_ctx, d.n_text_state),
            ),
            slot_axis=2,
        )
        super().__init__(graphs, dimensions, device, layout)
        self._signatures = signatures
        self._weights = weights
        self._lengths: dict[int, Buffer] = {}
        self.captured_graphs = CapturedGraphs(device, "decoder steps")
        self._captured_prefills = CapturedGraphs(device, "prompts")
        self._ahead = StepsAhead(graphs["advance"], signatures.advance, device, d)
        if not self._ahead.work():
            self.steps_ahead = 1

    def prompt_kind(self, prompt: Prompt) -> Hashable:
        """See `Decoder.prompt_kind`. Prompts that go together are padded to the longest, so their
        lengths lie between the same powers of 2: less than half of a prompt is padding."""
        length = max(prompt.tokens.shape[1], _SHORT)
        return prompt.state.frames, int(prompt.positions[0]), length.bit_length()

    def prefill_together(self, prompts: Sequence[Prompt]) -> None:
        """Appends the prompts of requests, of one kind and with the same buffers."""
        state, length = prompts[0].state, max(prompt.tokens.shape[1] for prompt in prompts)
        arrays = self._new_token_arrays(
            [prompt.state for prompt in prompts],
            # What follows a shorter one is written to where its next tokens will be.
            [_lengthened(prompt.tokens, length) for prompt in prompts],
            [prompt.positions for prompt in prompts],
            1,
        )

        def inputs(uploaded: Mapping[str, Buffer]) -> list[Buffer]:
            return self._signatures.prefill.ordered(**uploaded, **self._resident_inputs(state))

        prefill = self._graphs["prefill"]
        if length > _SHORT:
            (states,) = prefill.execute(*inputs(self._upload(**arrays)))
        else:
            buffers = state.allocation.buffers
            execution = self._captured_prefills.execute(
                prefill, state.frames, arrays, (buffers.cross_kv, buffers.kv_cache), inputs
            )
            (states,) = execution.lasting_results()
        keep_final_states(prompts, states)

    def kind(self, step: Step) -> Hashable:
        """What has to be equal for steps to be executed together: the rest is told row by row."""
        request = step.request
        return step.state.frames, request.beams, request.candidates, self._capacity(request)

    def step_together(self, steps: Sequence[Step]) -> list[Candidates]:
        """Executes the steps of one or several requests, of one kind and with the same buffers."""
        state, first = steps[0].state, steps[0].request
        requests = [step.request for step in steps]
        constraints = [request.constraints for request in requests]
        ahead = joined_lookahead(steps)
        arrays = {
            **self._new_token_arrays(
                [step.state for step in steps],
                [request.tokens for request in requests],
                [step.positions for step in steps],
                first.beams,
            ),
            "scores": joined([request.scores for request in requests]),
            "ranges": joined([one.ranges.reshape(-1, 4) for one in constraints]),
            "banned": _not_empty(stacked([_banned(step) for step in steps])),
            "penalized": _not_empty(stacked([one.penalized for one in constraints])),
            "checks": joined([one.check_timestamps for one in constraints]),
            "first_timestamp": np.array([state.rules.first_timestamp], np.int32),
            "sampling_integers": joined([_sampling_integers(request) for request in requests]),
            "sampling_floats": joined([_sampling_floats(step) for step in steps]),
            "last_timestamps": ahead.last_timestamps,
            "lookahead": np.array([ahead.eot, ahead.timed, ahead.summed], np.int32),
        }
        few = len(arrays["positions"]) <= FEW_ROWS
        buffers = state.allocation.buffers
        execution = self.captured_graphs.execute(
            self._graphs["step_few" if few else "step"],
            (few, self.kind(steps[0])),
            arrays,
            (buffers.cross_kv, buffers.kv_cache),
            lambda uploaded: self._signatures.step.ordered(
                **{name: uploaded[name] for name in arrays if name not in _LOOKAHEAD},
                **self._resident_inputs(state),
                candidates=self._length(first.candidates),
                capacity=self._length(self._capacity(first)),
            ),
        )
        candidates, watched, ruled, queries = execution.results
        if ahead.steps > 1 and not any(map(_wants_more, requests)):
            made, fed = self._ahead.make(execution, ahead.steps)
        else:
            made, fed = candidates.to_numpy()[None], np.empty((0, 0, 2), np.int32)
        proposed = [_candidates(one) for one in made]
        if not self._are_numbers(proposed[0]):
            raise RuntimeError(
                "the model's scores are no numbers (NaN): look for NaN in the features and in the "
                "model's weights; where neither has any, a compute_type with a larger range than "
                "float16 helps"
            )
        later = list(itertools.takewhile(self._are_numbers, proposed[1:]))
        if later:
            keep_steps_ahead(steps, fed, later)
        proposed[0].attended = self._attended(steps, queries)
        return split_candidates(steps, proposed[0], watched, ruled)

    def _are_numbers(self, candidates: Candidates) -> bool:
        """Whether the scores that the candidates were chosen by are."""
        known = (candidates.tokens < self.n_vocab).all()
        return bool(known and np.isfinite(candidates.scores[:, 0]).all())

    def _attended(self, steps: Sequence[Step], queries: Buffer) -> Int32Array | None:
        """The frame that each row attends to most, by cross-attention queries of all layers.

        None where nobody asks for it. Rows of other requests get the first frame.
        """
        asked = [step.request.attention for step in steps]
        heads = next((one.heads for one in asked if one is not None), None)
        if heads is None:
            return None
        state = steps[0].state
        items = [step.rows // step.request.beams for step in steps]
        content = [1 if one is None else one.content for one in asked]
        size = (steps[0].request.beams, 0, state.frames)
        uploaded = self._upload(
            windows=joined([step.state.windows[:: step.request.beams] for step in steps]),
            heads=heads,
            weight_sizes=np.tile(np.array(size, np.int32), (sum(items), 1)),
            content=np.repeat(np.array(content, np.int32), items),
        )
        inputs = self._signatures.attended.ordered(
            **uploaded, queries=queries, cross_kv=state.allocation.buffers.cross_kv
        )
        (attended,) = self._graphs["attended"].execute(*inputs)
        frames: Int32Array = attended.to_numpy().ravel()
        return frames

    def align(self, encoded: Buffer, request: AlignmentRequest) -> Alignments:
        """See `Decoder.align`.

        The weights are made on the device; the path through them is found on the host, where it
        is wanted.
        """
        state = self._alone(encoded)
        positions = state.advance(request.tokens.shape[1])
        uploaded = self._upload(
            **self._new_token_arrays([state], [request.tokens], [positions], 1),
            weight_sizes=request.weight_sizes,
            median_width=np.array([request.median_filter_width], np.int32),
            heads=request.sorted_heads,
            targets=request.targets,
            limit=np.array([request.eot], np.int32),
        )
        inputs = self._signatures.align.ordered(
            **uploaded,
            **self._resident_inputs(state),
            aligned=self._length(request.most_frames),
        )
        sums, probabilities = self._graphs["align"].execute(*inputs)
        inputs = DTW.ordered(
            sums=sums.to_numpy(),
            matrices=request.matrices,
            head_count=np.array([len(request.heads)], np.float32),
            threads=np.ones(1, np.int32),
        )
        paths, lengths = self._graphs["dtw"].execute(*inputs)
        return Alignments.of(paths.to_numpy(), lengths.to_numpy(), probabilities.to_numpy())

    def _fill_cross_kv(self, allocation: KVAllocation, encoded: Buffer) -> None:
        inputs = self._signatures.cross_kv.ordered(
            cross_kv=allocation.buffers.cross_kv,
            **self._upload(windows=allocation.windows),
            states=encoded,
            **self._weights.cross_kv,
        )
        self._graphs["cross_kv"].execute(*inputs)

    def _capacity(self, request: StepRequest) -> int:
        """How many continuations of each row are looked at."""
        topk = request.sampling.topk
        restricted = request.sampling.temperature > 0 and 1 < topk < request.beams * self.n_vocab
        return topk if restricted else request.candidates

    def _new_token_arrays(
        self,
        states: Sequence[DecoderState],
        tokens: Sequence[Int32Array],
        positions: Sequence[Int32Array],
        beams: int,
    ) -> dict[str, np.ndarray]:
        """What a pass over new tokens, ``[rows, length]`` or one a row, needs from the host."""
        new = joined(tokens)
        return {
            "tokens": new.reshape(len(new) // beams, -1),
            "positions": joined(positions),
            "slot_table": joined([state.slot_table for state in states]),
            "windows": joined([state.windows[::beams] for state in states]),
        }

    def _resident_inputs(self, state: DecoderState) -> dict[str, Buffer]:
        """What a pass needs that is on the device already."""
        buffers = state.allocation.buffers
        return {
            "cross_kv": buffers.cross_kv,
            "kv_cache": buffers.kv_cache,
            **self._weights.decoder,
        }

    def _probabilities(
        self, state: DecoderState, position: int, ids: Int32Array, limit: int
    ) -> Float32Array:
        assert state.prefill_states is not None
        uploaded = self._upload(
            index=np.array([position], np.int32), ids=ids, limit=np.array([limit], np.int32)
        )
        inputs = self._signatures.probabilities.ordered(
            states=state.prefill_states, **uploaded, **self._weights.embeddings
        )
        (result,) = self._graphs["probabilities"].execute(*inputs)
        values: Float32Array = result.to_numpy()[:, 0]
        return values

    def _upload(self, **arrays: np.ndarray) -> dict[str, Buffer]:
        """The arrays, of 32-bit numbers, on the device, after one transfer."""
        return parts(Buffer.from_numpy(staged(arrays)).to(self._device), arrays)

    def _length(self, count: int) -> Buffer:
        """An input of which only the length counts."""
        if count not in self._lengths:
            self._lengths[count] = Buffer(DType.int32, (count,), self._device)
        return self._lengths[count]


def _lengthened(tokens: Int32Array, length: int) -> Int32Array:
    """Tokens ``[rows, length]``, the last ones 0."""
    return np.pad(tokens, ((0, 0), (0, length - tokens.shape[1])))


def _wants_more(request: StepRequest) -> bool:
    """Whether more of a step is asked for than the candidates, which is kept of the last one."""
    return request.attention is not None or request.watch >= 0 or request.return_logits


def _candidates(made: Int32Array) -> Candidates:
    """Of a step, from what `whisper.gpu.choose` gives: ``[items, 3, candidates]``."""
    ids, origins, bits = made.swapaxes(0, 1)
    return Candidates(ids, origins, np.ascontiguousarray(bits).view(np.float32))


def _banned(step: Step) -> Int32Array:
    """The ids that each row of a step must not choose, always and now."""
    suppressed = step.state.rules.suppressed
    always = np.broadcast_to(suppressed, (step.rows, len(suppressed)))
    return np.concatenate([always, step.request.constraints.banned], axis=1)


def _sampling_integers(request: StepRequest) -> Int32Array:
    """Of each row: the watched id, top-k, seed, and its number within the request."""
    integers = np.empty((request.rows, 4), np.int32)
    integers[:, :3] = request.watch, request.sampling.topk, request.sampling.seed
    integers[:, 3] = np.arange(request.rows)
    return integers


def _sampling_floats(step: Step) -> Float32Array:
    """Of each row: the repetition penalty, and the temperature."""
    floats = np.empty((step.rows, 2), np.float32)
    floats[:] = step.state.rules.repetition_penalty, step.request.sampling.temperature
    return floats


def _not_empty(lists: Int32Array) -> Int32Array:
    """Lists of ids ``[rows, n]`` with an entry each: a device has no buffers without elements."""
    return lists if lists.shape[1] else np.full((len(lists), 1), -1, np.int32)
