"""Audio as it comes, as float32 mono at 16 kHz."""

from __future__ import annotations

from typing import Any

import av
import numpy as np
import numpy.typing as npt

RATE = 16_000
_MOST_CHANNELS = 16
_RATES = range(1000, 400_000)

Samples = npt.NDArray[np.float32]


class Resampler:
    """Takes pieces of a stream at one rate after another; keeps what it needs between them."""

    def __init__(self) -> None:
        self._rate = RATE
        self._resampler: Any = None

    def push(self, samples: Any, rate: int) -> Samples:
        """A piece at 16 kHz; some milliseconds of it come with the next piece.

        Args:
            samples: ``[samples]`` or ``[channels, samples]``, of floats from -1 to 1 or int16.
            rate: Samples a second.

        Raises:
            ValueError: Another shape or type, samples that are not numbers, or an impossible rate.
        """
        mono = _mono(samples)
        if rate not in _RATES:
            raise ValueError(
                f"a sampling rate of {rate} Hz cannot be: give one from {_RATES.start} to "
                f"{_RATES.stop - 1} Hz"
            )
        rest = self.rest() if rate != self._rate else np.empty(0, np.float32)
        self._rate = rate
        if rate == RATE or not len(mono):  # FFmpeg takes no empty frame
            return np.concatenate([rest, mono])
        if self._resampler is None:
            self._resampler = av.AudioResampler("flt", "mono", RATE)
        frame = av.AudioFrame.from_ndarray(mono[None], "flt", "mono")
        frame.sample_rate = rate
        return np.concatenate([rest, *self._resample(frame)])

    def rest(self) -> Samples:
        """What is still on its way; the next piece begins anew."""
        if self._resampler is None:
            return np.empty(0, np.float32)
        pieces = self._resample(None)
        self._resampler = None
        return np.concatenate([np.empty(0, np.float32), *pieces])

    def _resample(self, frame: Any) -> list[Samples]:
        return [one.to_ndarray()[0] for one in self._resampler.resample(frame)]


def _mono(samples: Any) -> Samples:
    array = np.asarray(samples)
    if array.ndim == 2 and array.shape[0] <= _MOST_CHANNELS:
        channels = array
    elif array.ndim == 1:
        channels = array[None]
    else:
        raise ValueError(
            f"samples have the shape {array.shape}: give [samples], or [channels, samples] with at "
            f"most {_MOST_CHANNELS} channels"
        )
    if channels.dtype == np.int16:
        channels = channels.astype(np.float32) / 32768
    if channels.dtype.kind != "f":
        raise ValueError(f"samples are {array.dtype}: give floats from -1 to 1, or int16")
    if not np.isfinite(channels).all():
        raise ValueError("samples are not numbers (NaN or infinite): leave this piece out")
    mono: Samples = channels.mean(0, dtype=np.float32) if len(channels) else array.reshape(-1)
    return np.ascontiguousarray(mono, np.float32)
