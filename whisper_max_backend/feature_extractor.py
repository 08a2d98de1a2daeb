"""The reference's feature extractor, computed by the log-mel kernel."""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Any

import numpy as np
from faster_whisper.feature_extractor import FeatureExtractor as ReferenceFeatureExtractor

from .engine.cpu.model_independent_graphs import common_graphs
from .engine.graphs.stft_tables import BINS, HOP_LENGTH, LOG_MEL, N_FFT, tables
from .system.fork_and_exit import inside_max, is_forked

if TYPE_CHECKING:
    from .engine.serving.protocol import LogMel

_log = logging.getLogger("whisper_max_backend")


@functools.cache
def _tell_fallback(n_fft: int, hop_length: int) -> None:
    _log.warning(
        "log-mel features with n_fft=%s and hop_length=%s are computed by the reference's NumPy "
        "code: the kernel is made for n_fft=%d and hop_length=%d",
        n_fft,
        hop_length,
        N_FFT,
        HOP_LENGTH,
    )


@functools.cache
def _tell_fork() -> None:
    _log.warning(
        "log-mel features are computed by the reference's NumPy code: this process was forked from "
        "one in which MAX had started, whose threads stayed there"
    )


@functools.cache
def _kernel() -> LogMel:
    """The compiled graph as a function of features (written), waveform, filters and padded length.

    It runs on the CPU: the samples are there, and the features are cut and batched there. A model
    on a GPU brings its own, which is worth the way there and back.
    """
    model = common_graphs()["log_mel"]
    own = tables()

    def run(features: np.ndarray, waveform: np.ndarray, filters: np.ndarray, padded: int) -> None:
        inputs = LOG_MEL.ordered(
            features=features, waveform=waveform, filters=filters, padded=np.int64(padded), **own
        )
        (peak,) = model.execute(*inputs)
        peak.to_numpy()

    return run


class FeatureExtractor(ReferenceFeatureExtractor):
    """``faster_whisper.feature_extractor.FeatureExtractor`` with the same arguments and results.

    Frames of 400 samples, 160 apart, are computed by the kernel, whatever the number of mels;
    other sizes, and in a process that was forked from one with a model, by the reference's own
    code.
    """

    device_kernel: LogMel | None = None
    """Of the GPU that the model is on."""

    def __call__(
        self, waveform: np.ndarray, padding: int | None = 160, chunk_length: int | None = None
    ) -> np.ndarray:
        """The log-mel spectrogram.

        Args:
            waveform: Samples [samples], or [items, samples] as the reference takes them (its
                padding then adds items too); any real type.
            padding: Zeros that follow the samples.
            chunk_length: Seconds; if given, ``n_samples`` and ``nb_max_frames`` change with it.

        Returns:
            float32 [n_mels, frames], or [items, n_mels, frames] for two-dimensional input.

        Raises:
            ValueError: No samples, or too few for one frame.
        """
        if self.n_fft != N_FFT or self.hop_length != HOP_LENGTH:
            _tell_fallback(self.n_fft, self.hop_length)
            return self._reference(waveform, padding, chunk_length)
        if is_forked():
            _tell_fork()
            return self._reference(waveform, padding, chunk_length)
        if isinstance(waveform, np.ndarray) and waveform.ndim == 2 and padding:
            waveform, padding = np.pad(waveform, (0, padding)), 0
        if not self._computable(waveform, padding):  # the reference words the error
            return self._reference(waveform, padding, chunk_length)
        padded = waveform.shape[-1] + int(padding or 0)
        if chunk_length is not None:
            self.n_samples = chunk_length * self.sampling_rate
            self.nb_max_frames = self.n_samples // self.hop_length
        samples = np.ascontiguousarray(np.atleast_2d(waveform), dtype=np.float32)
        if samples.shape[1] == 0:
            samples = np.zeros((len(samples), 1), np.float32)  # the first of the padding's zeros
        filters = np.ascontiguousarray(self.mel_filters, dtype=np.float32)
        features = np.empty((len(samples), len(filters), padded // HOP_LENGTH), np.float32)
        with inside_max:
            (self.device_kernel or _kernel())(features, samples, filters, padded)
        return features if waveform.ndim == 2 else features[0]

    def _reference(self, waveform: Any, padding: Any, chunk_length: int | None) -> np.ndarray:
        features: np.ndarray = super().__call__(waveform, padding, chunk_length)
        return features

    def _computable(self, waveform: Any, padding: Any) -> bool:
        """Whether there is at least one frame, and everything has the shape that it should."""
        return bool(
            isinstance(waveform, np.ndarray)
            and waveform.ndim in (1, 2)
            and (not padding or (isinstance(padding, (int, np.integer)) and padding > 0))
            and waveform.shape[-1] + int(padding or 0) >= HOP_LENGTH
            and len(waveform) + int(padding or 0) > 0
            and self.mel_filters.shape[1:] == (BINS,)
            and self.mel_filters.size > 0
        )
