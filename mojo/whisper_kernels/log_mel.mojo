"""The log-mel spectrogram, the one operation that both kinds of device have under one name."""

import extensibility
from extensibility import InputTensor, OutputTensor
from extensibility import _MutableInputTensor as MutableInputTensor
from max.gpu.host import DeviceContext
from max.gpu.host.info import is_cpu

from .common.views import View
from .cpu.log_mel import log_mel_cpu
from .gpu.log_mel import log_mel_gpu


@extensibility.register("whisper.log_mel")
struct LogMel:
    """Fills features [items, mels, frames] from waveform [items, samples].

    `padded` is the number of samples including the zeros that follow the waveform; frames are
    HOP_LENGTH samples apart, centred on their first sample, and frames = padded // HOP_LENGTH.
    `twiddles` is exp(-2 pi i k / 400) as [400, 2]. `peak` [1] takes the maximum of log10.
    """

    @staticmethod
    def execute[
        target: StaticString
    ](
        peak: OutputTensor[dtype=DType.float32, rank=1, ...],
        features: MutableInputTensor[dtype=DType.float32, rank=3, ...],
        waveform: InputTensor[dtype=DType.float32, rank=2, ...],
        filters: InputTensor[dtype=DType.float32, rank=2, ...],
        window: InputTensor[dtype=DType.float32, rank=1, ...],
        twiddles: InputTensor[dtype=DType.float32, rank=2, ...],
        padded: Int64,
        ctx: DeviceContext,
    ) raises:
        comptime if is_cpu[target]():
            View(peak)[0] = log_mel_cpu(
                View(features),
                View(waveform),
                View(filters),
                View(window),
                View(twiddles),
                features.dim_size(0),
                features.dim_size(1),
                features.dim_size(2),
                waveform.dim_size(1),
                Int(padded),
            )
        else:
            log_mel_gpu(
                features.to_device_buffer(ctx),
                waveform.to_device_buffer(ctx),
                filters.to_device_buffer(ctx),
                window.to_device_buffer(ctx),
                twiddles.to_device_buffer(ctx),
                peak.to_device_buffer(ctx),
                features.dim_size(0),
                features.dim_size(1),
                features.dim_size(2),
                waveform.dim_size(1),
                Int(padded),
                ctx,
            )
