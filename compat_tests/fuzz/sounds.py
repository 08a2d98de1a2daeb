"""Target: sound files of several containers and codecs, damaged, decoded as `transcribe` does.

An input is one file. It fails unless it is refused by an exception that names it, or decoded to
samples that are numbers.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from compat_tests.fuzz.bundle import pack
from compat_tests.fuzz.readers import check_memory
from compat_tests.support.recordings import SAMPLING_RATE, load
from whisper_max_backend.audio import checked_audio

SOUND = "decoded"  # what becomes of a seed
_SECONDS = 1.5
# Extension, container, codec, sampling rate.
_KINDS = (
    ("wav", "wav", "pcm_s16le", 16_000),
    ("wav", "wav", "pcm_f32le", 8_000),
    ("wav", "wav", "adpcm_ms", 22_050),
    ("flac", "flac", "flac", 16_000),
    ("opus", "ogg", "libopus", 48_000),
    ("ogg", "ogg", "libvorbis", 44_100),
    ("mp3", "mp3", "libmp3lame", 44_100),
    ("mkv", "matroska", "alac", 44_100),
    ("mkv", "matroska", "flac", 16_000),
    ("webm", "webm", "libopus", 48_000),
    ("m4a", "mp4", "aac", 44_100),
    ("mov", "mov", "pcm_s24le", 16_000),
    ("aiff", "aiff", "pcm_s16be", 16_000),
    ("au", "au", "pcm_mulaw", 8_000),
    ("avi", "avi", "ac3", 48_000),
    ("wma", "asf", "wmav2", 44_100),
    ("ts", "mpegts", "mp2", 48_000),
)


def prepare() -> None:
    """FFmpeg has much to say of damaged files."""
    av.logging.set_level(av.logging.PANIC)


def seeds() -> list[bytes]:
    """The start of one recording, in every kind that this FFmpeg can write."""
    samples = load("command")[: int(_SECONDS * SAMPLING_RATE)]
    return [
        pack({f"recording.{extension}": _encoded(samples, container, codec, rate)})
        for extension, container, codec, rate in _KINDS
        if codec in av.codecs_available
    ]


def _encoded(samples: np.ndarray, container: str, codec: str, rate: int) -> bytes:
    out = io.BytesIO()
    options = {"fflags": "bitexact"}  # no random numbers
    with av.open(out, "w", format=container, options=options) as file:
        stream = file.add_stream(codec, rate=rate, layout="mono", bit_rate=64_000)
        values = (samples * 32767).round().astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(values, format="s16", layout="mono")
        frame.sample_rate = SAMPLING_RATE
        frame.pts, frame.time_base = 0, Fraction(1, SAMPLING_RATE)
        context = stream.codec_context
        resampler = av.AudioResampler(
            context.format or "s16", "mono", rate, context.frame_size or None
        )
        for resampled in (*resampler.resample(frame), *resampler.resample(None)):
            file.mux(stream.encode(resampled))
        file.mux(stream.encode(None))
    return out.getvalue()


def check(files: Mapping[str, bytes]) -> str:
    """What became of the input, in a few words; anything wrong raises."""
    name, content = next(iter(files.items()))
    with tempfile.NamedTemporaryFile(suffix=Path(name).suffix) as file:
        file.write(content)
        file.flush()
        try:
            samples = checked_audio(file.name, SAMPLING_RATE)
        except (ValueError, av.error.FFmpegError) as error:
            if file.name not in str(error):
                raise
            if not isinstance(error, av.error.FFmpegError):  # FFmpeg refuses large sizes so
                check_memory(error)
            return f"refused, {type(error).__name__}"
    assert samples.dtype == np.float32
    assert samples.ndim == 1
    assert np.isfinite(samples).all()
    return SOUND
