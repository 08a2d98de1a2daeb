"""All graphs of a model, compiled as one module so that they load together."""

from __future__ import annotations

from dataclasses import dataclass

from max.dtype import DType
from max.graph import DeviceRef, Module

from .decoder import DecoderGraphs
from .encoder import add_encoder, add_memory


@dataclass(frozen=True)
class Storage:
    """What the numbers of a model are kept in.

    Attributes:
        encoder: The matrices that are read once a window: the encoder's, and the projections to
            cross-attention keys and values.
        decoder: The matrices that every step reads.
        memory: The cross-attention keys and values.
    """

    encoder: DType
    decoder: DType
    memory: DType

    @property
    def name(self) -> str:
        """Names the three, as part of a key."""
        return f"{self.encoder.name}-{self.decoder.name}-{self.memory.name}"


def build_module(device: DeviceRef, storage: Storage) -> Module:
    """The graphs ``encode``, ``remember``, ``prefill``, ``step``, ``probabilities``, ``align``."""
    module = Module()
    add_encoder(module, device, storage.encoder)
    add_memory(module, device, storage.encoder, storage.memory)
    DecoderGraphs(module, device, storage.decoder, storage.memory).add_all()
    return module
