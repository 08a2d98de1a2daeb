"""All graphs of a model, compiled as one module so that they load together."""

from __future__ import annotations

from max.dtype import DType
from max.graph import DeviceRef, Module

from ..checkpoint import Dimensions
from .decoder import DecoderGraphs
from .encoder import add_encoder


def build_module(dimensions: Dimensions, device: DeviceRef, storage: DType) -> Module:
    """The graphs ``encode``, ``remember``, ``prefill``, ``step``, ``probabilities``, ``align``.

    The dense weights that a decoder step reads are of the type `storage`.
    """
    module = Module()
    add_encoder(module, dimensions, device)
    DecoderGraphs(module, dimensions, device, storage).add_all()
    return module
