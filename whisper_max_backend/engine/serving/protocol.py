"""What a model offers to requests, whichever device it is on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from max.driver import Buffer

from ...system.cancellation import NEVER, StopFlag
from ..checkpoint.dimensions import Dimensions
from ..search.protocol import Float32Array, StepDecoder
from ..search.rules import FixedRules
from ..state.alignment_request import AlignmentRequest, Alignments
from ..state.decoder import Decoder
from ..state.decoder_state import DecoderState

LogMel = Callable[[np.ndarray, np.ndarray, np.ndarray, int], None]
"""Fills features, from a waveform, mel filters and the padded length."""


class RequestDecoder(StepDecoder[DecoderState], Protocol):
    """What a request needs of a decoder; see `Decoder`."""

    def start(
        self,
        encoded: Buffer,
        rules: FixedRules,
        rows_per_item: int = 1,
        stop: StopFlag = NEVER,
    ) -> DecoderState:
        """A state for the windows ``encoded [items, frames, n_audio_state]``."""

    def finish(self, state: DecoderState) -> None:
        """The request is done."""

    def language_probabilities(
        self, encoded: Buffer, sot: int, languages: Sequence[int]
    ) -> Float32Array:
        """Softmax over the language tokens: ``[items, languages]``."""

    def align(self, encoded: Buffer, request: AlignmentRequest) -> Alignments:
        """Which frames each token was spoken in."""


class Model(Protocol):
    """A model on a device."""

    @property
    def dimensions(self) -> Dimensions:
        """Of the model."""

    @property
    def decoder(self) -> RequestDecoder:
        """The text decoder."""

    @property
    def log_mel(self) -> LogMel | None:
        """The device's kernel; None where all models of a process share one."""

    def encode(self, features: np.ndarray, stop: StopFlag = NEVER) -> Buffer:
        """Encoder states ``[batch, (frames + 1) // 2, n_audio_state]`` of log-mel features."""

    def to_device(self, array: object) -> Buffer:
        """The array on this device; without a copy if it is there already."""


class DeviceModel(Model, Protocol):
    """A model that one request at a time may use, or that a `SharedModel` is made of."""

    @property
    def decoder(self) -> Decoder:
        """The text decoder."""
