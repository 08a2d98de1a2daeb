"""The log-mel spectrogram as a MAX graph: one artifact for every length and number of mels."""

from __future__ import annotations

from max.dtype import DType
from max.graph import DeviceRef, Module, TensorType, ops

from .ops import new_graph
from .stft_tables import LOG_MEL


def add_log_mel(module: Module, device: DeviceRef) -> None:
    """Adds the graph ``log_mel``, which fills the features.

    Gives float32 ``[1]``, the maximum of log10 over all items, before the clamp. Once it is there,
    so are the features.
    """
    with new_graph("log_mel", LOG_MEL.types(device), module) as graph:
        (peak,) = ops.inplace_custom(
            "whisper.log_mel",
            device=device,
            values=list(LOG_MEL.values(graph).values()),
            out_types=[TensorType(DType.float32, [1], device)],
        )
        graph.output(peak.tensor)
