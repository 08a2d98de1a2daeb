"""Runs the steps and windows of several threads' requests together on one device.

A step reads every weight of the decoder, for one request or for many: together they cost little
more than alone. Each request has its own search; what is shared is the execution.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from max.driver import Buffer

from ...system.cancellation import NEVER, StopFlag
from ...system.unpatched_threads import Condition
from ..search.protocol import Candidates, Float32Array, Int32Array, StepRequest
from ..search.rules import FixedRules
from ..state.alignment_request import AlignmentRequest, Alignments
from ..state.decoder import Decoder
from ..state.decoder_state import DecoderState
from ..state.device_locks import locks_of
from ..state.kv_cache import SharedKVAllocator
from ..state.step_batch import Prompt, Step
from .batching import Batcher
from .protocol import DeviceModel


class SharedModel:
    """A model for requests of several threads, made of one that serves one at a time."""

    def __init__(self, model: DeviceModel) -> None:
        """Share a model, which is not to be used by itself from now on."""
        self.dimensions = model.dimensions
        self.log_mel = model.log_mel
        self._model = model
        self._locks = locks_of(model.decoder.layout.device)
        self._encode_batcher = Batcher(self._encode_together, lambda features: features.shape[1:])
        self.decoder = SharedDecoder(model.decoder, self._locks.turn)

    def encode(self, features: np.ndarray, stop: StopFlag = NEVER) -> Buffer:
        """Encoder states of log-mel features; windows that wait at the same time go together."""
        states = self._encode_batcher.call(features)
        stop.check()
        return states

    def to_device(self, array: object) -> Buffer:
        """The array on this device; without a copy if it is there already."""
        with self._locks.beside:
            return self._model.to_device(array)

    def _encode_together(self, several: Sequence[np.ndarray]) -> list[Buffer]:
        with self._locks.turn:
            if len(several) == 1:
                return [self._model.encode(several[0])]
            states = self._model.encode(np.concatenate(several))
        ends = np.cumsum([len(features) for features in several]).tolist()
        return [
            states[end - len(features) : end, :, :]
            for features, end in zip(several, ends, strict=True)
        ]


class SharedDecoder:
    """A decoder for requests of several threads, each of which decodes as if it were alone.

    A request takes part from its prompt until it is finished. A step is executed when every
    request that takes part has asked for its next one; in between they only search, which is
    short. So one that ends leaves at once, and a new one joins at the next step.
    """

    def __init__(self, decoder: Decoder, turn: Condition) -> None:
        """Share a decoder.

        Args:
            decoder: It gets buffers that requests have in common.
            turn: Held while the device is used: one execution at a time.
        """
        self._decoder = decoder
        self._turn = turn
        decoder.allocator = SharedKVAllocator(decoder.layout, turn)
        self._step_batcher: Batcher[Step, Candidates] = Batcher(self._step_together, decoder.kind)
        self._prompt_batcher: Batcher[Prompt, None] = Batcher(
            self._prefill_together, decoder.prompt_kind
        )
        self._joined: set[DecoderState] = set()

    @property
    def n_vocab(self) -> int:
        """Size of the vocabulary."""
        return self._decoder.n_vocab

    @property
    def steps_ahead(self) -> int:
        """See `StepDecoder`."""
        return self._decoder.steps_ahead

    def start(
        self,
        encoded: Buffer,
        rules: FixedRules,
        rows_per_item: int = 1,
        stop: StopFlag = NEVER,
    ) -> DecoderState:
        """See `Decoder.start`. Waits while there is no room for it."""
        with self._turn:
            return self._decoder.start(encoded, rules, rows_per_item, stop)

    def finish(self, state: DecoderState) -> None:
        """See `Decoder.finish`; others do not wait for this request any more."""
        if state in self._joined:
            self._joined.remove(state)
            self._step_batcher.leave()
        with self._turn:
            self._decoder.finish(state)

    def prefill(self, state: DecoderState, tokens: Int32Array) -> None:
        """See `Decoder.prefill`; appended together with the prompts of other threads.

        From now on the request takes part: the others' next step waits for its first one.
        """
        self._join(state)
        self._prompt_batcher.call(self._decoder.next_prompt(state, tokens))

    def prefill_probability(self, state: DecoderState, position: int, token: int) -> Float32Array:
        """See `Decoder.prefill_probability`."""
        with self._turn:
            return self._decoder.prefill_probability(state, position, token)

    def step(self, state: DecoderState, request: StepRequest) -> Candidates:
        """See `Decoder.step`; executed together with those of other threads."""
        self._join(state)
        candidates = self._step_batcher.call(self._decoder.next_step(state, request))
        state.stop.check()
        return candidates

    def language_probabilities(
        self, encoded: Buffer, sot: int, languages: Sequence[int]
    ) -> Float32Array:
        """See `Decoder.language_probabilities`."""
        with self._turn:
            return self._decoder.language_probabilities(encoded, sot, languages)

    def align(self, encoded: Buffer, request: AlignmentRequest) -> Alignments:
        """See `Decoder.align`."""
        with self._turn:
            return self._decoder.align(encoded, request)

    def _join(self, state: DecoderState) -> None:
        if state not in self._joined:
            self._joined.add(state)
            self._step_batcher.join()

    def _prefill_together(self, prompts: Sequence[Prompt]) -> list[None]:
        with self._turn:
            self._decoder.prefill_together(prompts)
        return [None] * len(prompts)

    def _step_together(self, steps: Sequence[Step]) -> list[Candidates]:
        with self._turn:
            return self._decoder.step_together(steps)
