"""The log-mel transform: its constants, window and twiddle factors, and the graph's inputs."""

from __future__ import annotations

import numpy as np
from max.dtype import DType

from .signature import Input, Signature, floats

N_FFT = 400
HOP_LENGTH = 160
BINS = N_FFT // 2 + 1

LOG_MEL = Signature(
    Input("features", DType.float32, ("items", "n_mels", "frames"), in_place=True),
    floats("waveform", "items", "samples"),
    floats("filters", "n_mels", BINS),
    floats("window", N_FFT),
    floats("twiddles", N_FFT, 2),  # exp(-2 pi i k / N_FFT)
    # Samples with the zeros that are thought to follow them; frames == padded // HOP_LENGTH.
    Input("padded", DType.int64, (), on_host=True),
)


def tables() -> dict[str, np.ndarray]:
    """The graph's inputs ``window`` and ``twiddles``."""
    window = np.hanning(N_FFT + 1)[:-1].astype(np.float32)
    angles = -2 * np.pi / N_FFT * np.arange(N_FFT)
    twiddles = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    return {"window": window, "twiddles": twiddles}
