"""Window and Fourier factors of the log-mel transform, and its constants."""

from __future__ import annotations

import numpy as np

N_FFT = 400
HOP_LENGTH = 160
BINS = N_FFT // 2 + 1


def tables() -> tuple[np.ndarray, np.ndarray]:
    """The window ``[N_FFT]`` and ``exp(-2 pi i k / N_FFT)`` ``[N_FFT, 2]``, float32."""
    window = np.hanning(N_FFT + 1)[:-1].astype(np.float32)
    angles = -2 * np.pi / N_FFT * np.arange(N_FFT)
    return window, np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
