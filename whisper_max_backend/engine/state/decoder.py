"""The base of the CPU's and the GPU's decoder: KV cache, prefill, steps, alignment.

What is the same on every device is here; a device's own decoder runs the graphs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence

import numpy as np
from max.driver import Buffer, Device

from ...system.cancellation import NEVER, StopFlag
from ..checkpoint.dimensions import Dimensions
from ..compile.session import LoadedGraph
from ..search.protocol import Candidates, Float32Array, Int32Array, StepRequest
from ..search.rules import FixedRules
from .alignment_request import AlignmentRequest, Alignments
from .decoder_state import DecoderState
from .kv_cache import KVAllocation, KVAllocator, KVLayout, PrivateKVAllocator
from .step_batch import Prompt, Step


class Decoder(ABC):
    """Decodes on a device. Requests of several threads each have a state of their own."""

    steps_ahead = 1

    def __init__(
        self,
        graphs: Mapping[str, LoadedGraph],
        dimensions: Dimensions,
        device: Device,
        layout: KVLayout,
    ) -> None:
        """Decode with graphs that are loaded.

        Args:
            graphs: By their names.
            dimensions: Of the model.
            device: Where the graphs run.
            layout: Of the buffers that requests keep.
        """
        self._graphs = graphs
        self._dimensions = dimensions
        self._device = device
        self.layout = layout
        self._private = PrivateKVAllocator(layout)
        self.allocator: KVAllocator = self._private

    @property
    def n_vocab(self) -> int:
        """Size of the vocabulary."""
        return self._dimensions.n_vocab

    def start(
        self,
        encoded: Buffer,
        rules: FixedRules,
        rows_per_item: int = 1,
        stop: StopFlag = NEVER,
    ) -> DecoderState:
        """A state for the windows ``encoded [items, frames, n_audio_state]``.

        Args:
            encoded: The encoder's output, on this device.
            rules: What holds at every step.
            rows_per_item: Most hypotheses that an item will have at once.
            stop: Makes the steps raise `Cancelled`.
        """
        items, frames, _ = encoded.shape
        allocation = self.allocator.allocate(frames, items, items * rows_per_item)
        state = DecoderState(allocation, frames, self._dimensions.n_text_ctx, rules, stop)
        try:
            self._fill_cross_kv(allocation, encoded)
        except BaseException:
            self.finish(state)
            raise
        return state

    def finish(self, state: DecoderState) -> None:
        """The request is done: its windows and slots are for others."""
        self.allocator.free(state.allocation)

    def step(self, state: DecoderState, request: StepRequest) -> Candidates:
        """Appends a token to every row and proposes continuations of every item.

        Raises:
            Cancelled: The request was stopped.
        """
        candidates = self.step_together([self.next_step(state, request)])[0]
        state.stop.check()
        return candidates

    def next_step(self, state: DecoderState, request: StepRequest) -> Step:
        """The step that `step` would execute; the state advances.

        Raises:
            RuntimeError: There is no position left.
        """
        return Step(state, state.advance(1), request)

    def prefill(self, state: DecoderState, tokens: Int32Array) -> None:
        """Appends ``tokens [rows, length]`` to the KV cache of all rows."""
        self.prefill_together([self.next_prompt(state, tokens)])

    def next_prompt(self, state: DecoderState, tokens: Int32Array) -> Prompt:
        """What `prefill` would append; the state advances.

        Raises:
            RuntimeError: There are too few positions left.
        """
        return Prompt(state, state.advance(tokens.shape[1]), tokens)

    @abstractmethod
    def prompt_kind(self, prompt: Prompt) -> Hashable:
        """What has to be equal for prompts to be appended together."""

    @abstractmethod
    def prefill_together(self, prompts: Sequence[Prompt]) -> None:
        """Appends the prompts of requests, of one kind and with the same buffers."""

    @abstractmethod
    def kind(self, step: Step) -> Hashable:
        """What has to be equal for steps to be executed together."""

    @abstractmethod
    def step_together(self, steps: Sequence[Step]) -> list[Candidates]:
        """Executes the steps of one or several requests, of one kind and with the same buffers."""

    def prefill_probability(self, state: DecoderState, position: int, token: int) -> Float32Array:
        """Probability of `token` at a position of the last prefill, before any rule: ``[rows]``."""
        ids = np.full((len(state.windows), 1, 1), token, np.int32)
        return self._probabilities(state, position, ids, self.n_vocab)[:, 0]

    def language_probabilities(
        self, encoded: Buffer, sot: int, languages: Sequence[int]
    ) -> Float32Array:
        """Softmax over the language tokens after <|startoftranscript|>: ``[items, languages]``."""
        items = encoded.shape[0]
        ids = np.broadcast_to(np.asarray(languages, np.int32), (items, 1, len(languages)))
        state = self._alone(encoded)
        self.prefill(state, np.full((items, 1), sot, np.int32))
        return self._probabilities(state, 0, ids, 0)

    @abstractmethod
    def align(self, encoded: Buffer, request: AlignmentRequest) -> Alignments:
        """Which encoder frames each token was spoken in.

        Args:
            encoded: ``[items, frames, n_audio_state]``.
            request: The texts of these items.
        """

    @abstractmethod
    def _fill_cross_kv(self, allocation: KVAllocation, encoded: Buffer) -> None:
        """Fills the cross-attention keys and values of windows from their encoder output."""

    @abstractmethod
    def _probabilities(
        self, state: DecoderState, position: int, ids: Int32Array, limit: int
    ) -> Float32Array:
        """Of ``ids [items, 1, count]`` at a position of the last prefill: ``[items, count]``.

        They are over all ids below `limit`, or where that is 0, over these ids.
        """

    def _alone(self, encoded: Buffer) -> DecoderState:
        """A state for one pass, in buffers of its own: alignment reads all of the cross KV."""
        items, frames, _ = encoded.shape
        allocation = self._private.allocate(frames, items, items)
        self._fill_cross_kv(allocation, encoded)
        return DecoderState(allocation, frames, self._dimensions.n_text_ctx, FixedRules())
