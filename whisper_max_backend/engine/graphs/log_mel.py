"""The log-mel spectrogram as a MAX graph: one artifact for every length and number of mels."""

from __future__ import annotations

from max.dtype import DType
from max.graph import BufferType, DeviceRef, Module, TensorType, ops

from .ops import new_graph
from .stft_tables import BINS, N_FFT


def add_log_mel(module: Module, device: DeviceRef) -> None:
    """Adds the graph ``log_mel``.

    Inputs, all on ``device`` but the last:
        features: float32 [items, n_mels, frames], written in place.
        waveform: float32 [items, samples].
        filters: float32 [n_mels, BINS], the mel filters.
        window: float32 [N_FFT].
        turns: float32 [N_FFT, 2], exp(-2 pi i k / N_FFT).
        padded: int64 scalar on the host, samples with the zeros that are thought to follow them;
            frames == padded // HOP_LENGTH.

    Output: float32 [1], the maximum of log10 over all items, before the clamp. Once it is there,
    so are the features.
    """
    cpu = DeviceRef.CPU()
    inputs = [
        BufferType(DType.float32, ["items", "n_mels", "frames"], device),
        TensorType(DType.float32, ["items", "samples"], device),
        TensorType(DType.float32, ["n_mels", BINS], device),
        TensorType(DType.float32, [N_FFT], device),
        TensorType(DType.float32, [N_FFT, 2], device),
        TensorType(DType.int64, [], cpu),
    ]
    with new_graph("log_mel", inputs, module) as graph:
        features, *values = graph.inputs
        (peak,) = ops.inplace_custom(
            "whisper.log_mel",
            device=device,
            values=[features.buffer, *(value.tensor for value in values)],
            out_types=[TensorType(DType.float32, [1], device)],
        )
        graph.output(peak.tensor)
