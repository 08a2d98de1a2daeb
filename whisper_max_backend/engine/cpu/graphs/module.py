"""All graphs of a model, compiled as one module so that they load together."""

from __future__ import annotations

from max.graph import DeviceRef, Module

from ...checkpoint.weight_dtypes import Storage
from .decoder import DecoderGraphs
from .encoder import add_cross_kv, add_encoder


def build_module(device: DeviceRef, storage: Storage) -> Module:
    """The graphs ``encode``, ``cross_kv``, ``prefill``, ``step``, ``probabilities``, ``align``."""
    module = Module()
    add_encoder(module, device, storage.encoder)
    add_cross_kv(module, device, storage.encoder, storage.cross_kv)
    DecoderGraphs(module, device, storage).add_all()
    return module
