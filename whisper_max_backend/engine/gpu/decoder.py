"""The decoder on a GPU: the requests and searches are those of the CPU's."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
from max.driver import Buffer, Device
from max.dtype import DType

from ..checkpoint.load import Dimensions
from ..compile.session import Model
from ..cpu.decoder import Decoder
from ..search.protocol import Candidates, Float32Array, Int32Array
from ..search.rules import stacked
from ..state.decoder_state import DecoderState, Step, joined, shared_out
from ..state.kv_cache import Caches, Layout, PrivateCaches
from .captured_graphs import Replays
from .graphs.layers import FEW_ROWS
from .upload import parts, staged
from .weights import DeviceWeights


class DeviceDecoder(Decoder):
    """Runs the decoder's graphs on a device.

    What a step needs goes up in one piece, and a few numbers an item come back.
    """

    steps_ahead = 1

    def __init__(
        self,
        models: Mapping[str, Model],
        weights: DeviceWeights,
        dimensions: Dimensions,
        device: Device,
        dtype: DType,
    ) -> None:
        self._models = models
        self._dimensions = dimensions
        self._device = device
        d = dimensions
        self.layout = Layout(
            device,
            memory=lambda frames, windows: (
                dtype,
                (d.n_text_layer, windows, frames, 2 * d.n_text_state),
            ),
            cache=lambda slots: (
                dtype,
                (d.n_text_layer, 2, slots, d.n_text_ctx, d.n_text_state),
            ),
            slot_axis=2,
        )
        self._private = PrivateCaches(self.layout)
        self.caches: Caches = self._private
        self._memory_weights = weights.memory
        self._weights = weights.decoder
        self._embeddings = weights.decoder[: weights.embeddings]
        self._lengths: dict[int, Buffer] = {}
        self.replays = Replays(device)

    def prefill(self, state: DecoderState, tokens: Int32Array) -> None:
        """Appends ``tokens [rows, length]`` to the caches of all rows."""
        positions = state.advance(tokens.shape[1])
        history = self._upload(*self._arrays([state], [tokens], [positions], 1))
        (state.states,) = self._models["prefill"].execute(*self._pass(state, history))

    def kind(self, step: Step) -> Hashable:
        """What has to be equal for steps to be executed together: the rest is told row by row."""
        return step.state.frames, step.beams, step.candidates, self._capacity(step)

    def step_together(self, steps: Sequence[Step]) -> list[Candidates]:
        """Executes the steps of one or several requests, of one kind and in the same room."""
        first = steps[0]
        constraints = [step.constraints for step in steps]
        arrays = [
            *self._arrays(
                [step.state for step in steps],
                [step.tokens for step in steps],
                [step.positions for step in steps],
                first.beams,
            ),
            joined([step.scores for step in steps]),
            joined([one.ranges.reshape(-1, 4) for one in constraints]),
            _some(stacked([_banned(step) for step in steps])),
            _some(stacked([one.penalized for one in constraints])),
            joined([one.check_timestamps for one in constraints]),
            np.array([first.state.first_timestamp], np.int32),
            joined([_draws(step) for step in steps]),
            joined([_factors(step) for step in steps]),
        ]
        lengths = [self._length(first.candidates), self._length(self._capacity(first))]
        name = "step_few" if sum(step.rows for step in steps) <= FEW_ROWS else "step"
        room = first.state.part.room
        proposals, watched, ruled = self.replays.execute(
            self._models[name],
            (name, self.kind(first)),
            arrays,
            (room.memory, room.cache),
            lambda uploaded: [*self._pass(first.state, uploaded[:4]), *uploaded[4:], *lengths],
        )
        ids, origins, bits = proposals.to_numpy().swapaxes(0, 1)
        scores = np.ascontiguousarray(bits).view(np.float32)
        return shared_out(steps, Candidates(ids, origins, scores), watched, ruled)

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
        """Which encoder frames each token was spoken in; see `Decoder.align`.

        The weights are made on the device; the path through them is found on the host, where it
        is wanted.
        """
        _, longest = tokens.shape
        targets = np.zeros((*tokens.shape, 1), np.int32)
        targets[:, :-1, 0] = tokens[:, 1:]
        uniform = bool((frames == frames[0]).all())
        normalized = np.full_like(lengths, longest) if uniform else lengths
        state = self._alone(encoded)
        uploaded = self._upload(
            *self._arrays([state], [tokens], [state.advance(longest)], 1),
            np.stack([lengths, normalized, frames], 1).astype(np.int32),
            np.array([state.frames, median_filter_width], np.int32),
            np.array(sorted(heads), np.int32),
            targets,
            np.array([eot], np.int32),
        )
        history, (sizes, numbers, chosen, target, limit) = uploaded[:4], uploaded[4:]
        sums, probabilities = self._models["align"].execute(
            *self._pass(state, history),
            sizes,
            numbers,
            self._length(max(1, int(frames.max()))),
            chosen,
            target,
            limit,
        )
        rows = lengths - start_length - 1
        paths, counts = self._models["time_warping"].execute(
            sums.to_numpy(),
            np.stack([np.full_like(rows, start_length), rows, frames], 1).astype(np.int32),
            np.array([len(heads)], np.float32),
            np.ones(1, np.int32),
        )
        return (
            self._routes(paths.to_numpy(), counts.to_numpy()),
            probabilities.to_numpy()[:, :, 0],
        )

    def _remember(self, memory: Buffer, encoded: Buffer) -> None:
        """Fills the memory of windows from their encoder output."""
        self._models["remember"].execute(memory, encoded, *self._memory_weights)

    def _capacity(self, step: Step) -> int:
        """How many continuations of each row are looked at."""
        topk = step.sampling.topk
        restricted = step.sampling.temperature > 0 and 1 < topk < step.beams * self.n_vocab
        return topk if restricted else step.candidates

    def _arrays(
        self,
        states: Sequence[DecoderState],
        tokens: Sequence[Int32Array],
        positions: Sequence[Int32Array],
        beams: int,
    ) -> list[np.ndarray]:
        """What a pass over new tokens, ``[rows, length]`` or one a row, needs from the host."""
        new = joined(tokens)
        return [
            new.reshape(len(new) // beams, -1),
            joined(positions),
            joined([state.origins for state in states]),
            joined([state.windows[::beams] for state in states]),
        ]

    def _pass(self, state: DecoderState, uploaded: Sequence[Buffer]) -> list[Buffer]:
        """Inputs that every pass begins with."""
        return [*uploaded, state.part.room.memory, state.part.room.cache, *self._weights]

    def _probabilities(
        self, state: DecoderState, position: int, ids: Int32Array, limit: int
    ) -> Float32Array:
        assert state.states is not None
        index, chosen, among = self._upload(
            np.array([position], np.int32), ids, np.array([limit], np.int32)
        )
        (result,) = self._models["probabilities"].execute(
            state.states, index, chosen, among, *self._embeddings
        )
        values: Float32Array = result.to_numpy()[:, 0]
        return values

    def _upload(self, *arrays: np.ndarray) -> list[Buffer]:
        """The arrays, of 32-bit numbers, on the device, after one transfer."""
        return parts(Buffer.from_numpy(staged(arrays)).to(self._device), arrays)

    def _length(self, count: int) -> Buffer:
        """An input of which only the length counts."""
        if count not in self._lengths:
            self._lengths[count] = Buffer(DType.int32, (count,), self._device)
        return self._lengths[count]


def _banned(step: Step) -> Int32Array:
    """The ids that each row of a step must not choose, always and now."""
    always = np.broadcast_to(step.state.suppressed, (step.rows, len(step.state.suppressed)))
    return np.concatenate([always, step.constraints.banned], axis=1)


def _draws(step: Step) -> Int32Array:
    """Of each row: the watched id, top-k, seed, and its number within the request."""
    draws = np.empty((step.rows, 4), np.int32)
    draws[:, :3] = step.watch, step.sampling.topk, step.sampling.seed
    draws[:, 3] = np.arange(step.rows)
    return draws


def _factors(step: Step) -> Float32Array:
    """Of each row: the repetition penalty, and the temperature."""
    factors = np.empty((step.rows, 2), np.float32)
    factors[:] = step.state.penalty, step.sampling.temperature
    return factors


def _some(lists: Int32Array) -> Int32Array:
    """Lists of ids ``[rows, n]`` with an entry each: a device has no buffers without elements."""
    return lists if lists.shape[1] else np.full((len(lists), 1), -1, np.int32)
