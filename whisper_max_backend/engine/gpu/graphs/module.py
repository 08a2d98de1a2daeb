"""All graphs of a model, compiled as one module so that they load together."""

from __future__ import annotations

from max.dtype import DType
from max.graph import DeviceRef, Module

from ...checkpoint.dimensions import Dimensions
from ...graphs.log_mel import add_log_mel
from .casts import add_casts
from .decoder import DecoderGraphs
from .encoder import add_cross_kv, add_encoder
from .layers import AMPERE, Layers
from .signatures import Signatures


def build_module(
    device: DeviceRef,
    api: str,
    dtype: DType,
    storage: DType,
    dimensions: Dimensions,
    generation: int = AMPERE,
) -> Module:
    """The graphs ``log_mel``, ``encode``, ``cross_kv``, ``prefill``, ``step``, ``step_few``,
    ``advance``, ``attended``, ``probabilities``, ``align``, and those of `add_casts`.

    Args:
        device: Where they run.
        api: Of the device: ``"cpu"``, ``"cuda"`` or ``"hip"``.
        dtype: What they compute in.
        storage: What the decoder keeps its matrices in: `dtype`, or int8.
        dimensions: Of the model.
        generation: Of tensor cores, see `Layers`.
    """
    module = Module()
    layers = Layers(device, api, dtype, generation=generation)
    signatures = Signatures(dimensions, dtype, storage)
    add_encoder(module, layers, dimensions, signatures.encode)
    add_cross_kv(module, layers, dimensions, signatures.cross_kv)
    add_log_mel(module, device)
    add_casts(module, layers)
    DecoderGraphs(module, device, api, dtype, storage, dimensions, generation).add_all()
    return module
