"""The decoder on a GPU: the requests and searches are those of the CPU's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from max.driver import Buffer, Device
from max.dtype import DType

from .buffers import BufferPool
from .checkpoint import Dimensions
from .decoder import Decoder, DecoderState
from .decoder_protocol import Candidates, Float32Array, Int32Array, Sampling
from .device_weights import DeviceWeights
from .graphs.device.layers import FEW_ROWS
from .rules import Constraints
from .session import Model

_UNIT = 64
"""Bytes at whose multiples the arrays of an upload begin."""


class DeviceDecoder(Decoder):
    """Runs the decoder's graphs on a device.

    What a step needs goes up in one piece, and a few numbers an item come back.
    """

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
        self._dtype = dtype
        self._pool = BufferPool(device)
        self._memory_weights = weights.memory
        self._weights = weights.decoder
        self._lengths: dict[int, Buffer] = {}

    def start(
        self,
        encoded: Buffer,
        *,
        suppressed: Sequence[int] = (),
        repetition_penalty: float = 1.0,
        rows_per_item: int = 1,
        first_timestamp: int = 0,
    ) -> DecoderState:
        """A state for the windows ``encoded [items, frames, n_audio_state]``; see `Decoder`."""
        items, frames, _ = encoded.shape
        d = self._dimensions
        state = DecoderState(items, frames, d.n_text_ctx)
        memory = (d.n_text_layer, items, frames, 2 * d.n_text_state)
        state.memory = self._pool.lend(state, self._dtype, memory)
        cache = (d.n_text_layer, 2, items * rows_per_item, d.n_text_ctx, d.n_text_state)
        state.cache = self._pool.lend(state, self._dtype, cache)
        state.suppressed, state.penalty = self._upload(
            _some(np.asarray([suppressed], np.int32))[0], np.array([repetition_penalty], np.float32)
        )
        state.first_timestamp = first_timestamp
        self._models["remember"].execute(state.memory, encoded, *self._memory_weights)
        return state

    def prefill(self, state: DecoderState, tokens: Int32Array) -> None:
        """Appends ``tokens [rows, length]`` to the caches of all rows."""
        history = self._upload(*self._arrays(state, tokens, 1))
        (state.states,) = self._models["prefill"].execute(*self._pass(state, history))

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
        uploaded = self._upload(
            *self._arrays(state, tokens.reshape(rows, 1), beams),
            np.asarray(scores, np.float32),
            constraints.ranges.reshape(rows, 4),
            _some(constraints.banned),
            _some(constraints.penalized),
            constraints.check_timestamps,
            np.array([state.first_timestamp, watch], np.int32),
            np.array([sampling.topk, sampling.seed], np.int32),
            np.array([sampling.temperature], np.float32),
        )
        history, (score, ranges, banned, penalized, checks, numbers, draw, temperature) = (
            uploaded[:4],
            uploaded[4:],
        )
        restricted = sampling.temperature > 0 and 1 < sampling.topk < beams * self.n_vocab
        model = self._models["step_few" if rows <= FEW_ROWS else "step"]
        proposals, watched, ruled = model.execute(
            *self._pass(state, history),
            score,
            state.suppressed,
            ranges,
            banned,
            penalized,
            checks,
            numbers,
            state.penalty,
            draw,
            temperature,
            self._length(candidates),
            self._length(sampling.topk if restricted else candidates),
        )
        ids, origins, bits = proposals.to_numpy().swapaxes(0, 1)
        return Candidates(
            tokens=ids,
            origins=origins,
            scores=np.ascontiguousarray(bits).view(np.float32),
            logits=ruled.to_numpy().reshape(rows, -1) if return_logits else None,
            watched=watched.to_numpy() if watch >= 0 else None,
        )

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
        state = self.start(encoded)
        targets = np.zeros((*tokens.shape, 1), np.int32)
        targets[:, :-1, 0] = tokens[:, 1:]
        uniform = bool((frames == frames[0]).all())
        normalized = np.full_like(lengths, longest) if uniform else lengths
        uploaded = self._upload(
            *self._arrays(state, tokens, 1),
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

    def _arrays(self, state: DecoderState, tokens: Int32Array, beams: int) -> list[np.ndarray]:
        """What a pass over new ``tokens [rows, length]`` needs from the host."""
        rows, length = tokens.shape
        positions = state.advance(length)
        return [
            tokens.reshape(rows // beams, beams * length),
            positions,
            state.origins,
            state.windows[::beams],
        ]

    def _pass(self, state: DecoderState, uploaded: Sequence[Buffer]) -> list[Buffer]:
        """Inputs that every pass begins with."""
        return [*uploaded, state.memory, state.cache, *self._weights]

    def _probabilities(
        self, state: DecoderState, position: int, ids: Int32Array, limit: int
    ) -> Float32Array:
        assert state.states is not None
        index, chosen, among = self._upload(
            np.array([position], np.int32), ids, np.array([limit], np.int32)
        )
        (result,) = self._models["probabilities"].execute(
            state.states, index, chosen, among, self._weights[0]
        )
        values: Float32Array = result.to_numpy()[:, 0]
        return values

    def _upload(self, *arrays: np.ndarray) -> list[Buffer]:
        """The arrays, of 32-bit numbers, on the device, after one transfer."""
        starts = np.cumsum([0, *(-(-array.nbytes // _UNIT) * _UNIT for array in arrays)])
        staged = np.empty(max(int(starts[-1]), _UNIT), np.uint8)
        for array, start in zip(arrays, starts, strict=False):
            staged[start : start + array.nbytes] = (
                np.ascontiguousarray(array).reshape(-1).view(np.uint8)
            )
        whole = Buffer.from_numpy(staged).to(self._device)
        return [
            whole[int(start) : int(start) + array.nbytes].view(
                DType.from_numpy(array.dtype), array.shape
            )
            for array, start in zip(arrays, starts, strict=False)
        ]

    def _length(self, count: int) -> Buffer:
        """An input of which only the length counts."""
        if count not in self._lengths:
            self._lengths[count] = Buffer(DType.int32, (count,), self._device)
        return self._lengths[count]


def _some(lists: Int32Array) -> Int32Array:
    """Lists of ids ``[rows, n]`` with an entry each: a device has no buffers without elements."""
    return lists if lists.shape[1] else np.full((len(lists), 1), -1, np.int32)
