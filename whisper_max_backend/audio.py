"""What may be transcribed: decoding with clear errors, and a look at the samples."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import av
import numpy as np
from faster_whisper import audio as decoding

_RATES = range(100, 12_000_001)  # Hz; the fastest are of one-bit recordings
_GROUP = 500_000  # samples resampled in one go, as the reference does
_BLOCK = 1 << 20  # samples looked at in one go, so that hours of audio need little memory


class NoAudioStreamError(IndexError, ValueError):
    """A file that opens but holds no audio: a picture, a text, a film without sound.

    The reference fails with an IndexError there; the ValueError is what other bad files raise.
    """


class DecodedSamples:
    """The samples of a file, int16 ``[samples]`` as decoded; slices are float32 from -1 to 1."""

    dtype = np.dtype(np.float32)

    def __init__(self, integers: np.ndarray) -> None:
        self._integers = integers

    def __len__(self) -> int:
        return len(self._integers)

    def __getitem__(self, part: slice) -> np.ndarray:
        scaled: np.ndarray = self._integers[part] * np.float32(1 / 32768)
        return scaled


Samples = np.ndarray | DecodedSamples
"""Of a recording."""


def checked_samples(
    audio: Any, sampling_rate: int, listen: Callable[[np.ndarray], None] | None = None
) -> Samples:
    """What `checked_audio` gives, but of a file in half of the memory.

    `listen` is called with all samples in their order, float32, a part as soon as it is there.
    """
    if not (isinstance(audio, (str, os.PathLike)) or hasattr(audio, "read")):
        samples = _checked_samples(_as_array(audio))
        if listen is not None:
            listen(samples)
        return samples
    named = isinstance(audio, (str, os.PathLike))
    name = os.fspath(audio) if named else getattr(audio, "name", None)
    with _clear_errors(audio, name):
        _check_rate(audio, name)
        whole = bytearray()  # it grows where it is; parts in a list would be in memory twice
        for part in _decoded(audio, sampling_rate):
            whole += part.data
            if listen is not None:
                listen(DecodedSamples(part)[:])
    return DecodedSamples(np.frombuffer(whole, np.int16))


def checked_audio(audio: Any, sampling_rate: int) -> np.ndarray:
    """Decode `audio` unless it is an array already, and refuse samples that are no numbers.

    Args:
        audio: Path, file object, or samples [samples] or [1, samples]: a NumPy array, or a tensor
            that NumPy can look at.
        sampling_rate: Hz that files are resampled to.

    Returns:
        The array as given, without a leading axis of one channel, or float32 [samples].

    Raises:
        NoAudioStreamError: The file holds no audio.
        ValueError: No audio at all, NaN or infinite samples, an array of several channels, or a
            file with an impossible sampling rate.
        TypeError: An array of objects that are no numbers.
        av.error.FFmpegError: PyAV's subclass of it for a file of unknown format (also a
            ValueError or EOFError), or one that cannot be opened (also an OSError).
    """
    samples = checked_samples(audio, sampling_rate)
    return samples if isinstance(samples, np.ndarray) else samples[:]


def decode_part(audio: Any, sampling_rate: int, offset: float, duration: float) -> np.ndarray:
    """The samples of a part of a recording, with no more of it in memory.

    They are those that decoding the whole has there. So all before the part is decoded, too.

    Args:
        audio: Path or file object.
        sampling_rate: Hz that the file is resampled to.
        offset: Seconds before the part.
        duration: Seconds of the part.

    Returns:
        float32 [samples]; fewer than asked for if the recording ends before.

    Raises:
        ValueError: The recording ends before the part begins; further errors as `checked_audio`.
    """
    first = round(offset * sampling_rate)
    last = first + round(duration * sampling_rate)
    name = os.fspath(audio) if isinstance(audio, (str, os.PathLike)) else None
    parts = []
    position = 0
    with _clear_errors(audio, name):
        _check_rate(audio, name)
        for samples in _decoded(audio, sampling_rate):
            part = samples[max(first - position, 0) : max(last - position, 0)]
            parts.append(part.copy())  # a slice would keep the whole frame
            position += len(samples)
            if position >= last:
                break
    if position <= first:
        seconds = position / sampling_rate
        raise ValueError(f"the part begins at {offset:g} s, but the recording has {seconds:.2f} s")
    return DecodedSamples(np.concatenate(parts))[:]


def _decoded(audio: Any, sampling_rate: int) -> Iterator[np.ndarray]:
    """The samples of a file, int16, a part after another: those of the reference's `decode_audio`,
    which keeps the whole three times."""
    resampler = av.AudioResampler(format="s16", layout="mono", rate=sampling_rate)
    with av.open(audio, mode="r", metadata_errors="ignore") as container:
        frames = decoding._ignore_invalid_frames(container.decode(audio=0))
        grouped = decoding._group_frames(frames, _GROUP)
        for frame in decoding._resample_frames(grouped, resampler):
            yield frame.to_ndarray().reshape(-1)


@contextmanager
def _clear_errors(audio: Any, name: Any) -> Iterator[None]:
    """Within, what decoding raises says which recording it is of, and what is wrong."""
    try:
        yield
    except IndexError as error:
        raise NoAudioStreamError(
            f"{name or audio!r} holds no audio stream: give a sound file, or a film with sound"
        ) from error
    except av.error.FFmpegError as error:
        if isinstance(error, OSError) and (name is None or error.filename == name):
            raise  # not found, a folder, no permission: PyAV's words are clear
        raise type(error)(
            error.errno or 0,
            f"this is no audio that can be decoded ({error.strerror})",
            name or error.filename,  # PyAV names the file where it opens it only
            error.log,
        ) from error


def _check_rate(audio: Any, name: Any) -> None:
    """Refuse a file whose sampling rate is no sound's: resampling it could take gigabytes.

    A file object that cannot be read twice is not looked at.

    Raises:
        ValueError: The rate is out of range.
        av.error.FFmpegError: The file cannot be opened.
    """
    start = 0
    if hasattr(audio, "read"):
        if not (hasattr(audio, "seekable") and audio.seekable()):
            return
        start = audio.tell()
    try:
        with av.open(audio, mode="r", metadata_errors="ignore") as container:
            codecs = [stream.codec_context for stream in container.streams.audio[:1]]
            rates = [0 if codec is None else codec.sample_rate for codec in codecs]
    finally:
        if hasattr(audio, "read"):
            audio.seek(start)
    # 0: the rate, or the codec, is not known yet.
    if rates and rates[0] and rates[0] not in _RATES:
        raise ValueError(
            f"{name or audio!r} has a sampling rate of {rates[0]} Hz: it is damaged, or holds "
            f"no sound; {_RATES.start} to {_RATES.stop - 1} Hz can be resampled"
        )


def _as_array(audio: Any) -> np.ndarray:
    """The samples of an array or a tensor, without a copy where that is possible.

    Raises:
        ValueError: It is neither, or a tensor that NumPy cannot look at.
    """
    if isinstance(audio, np.ndarray):
        return audio
    kind = type(audio).__name__
    if isinstance(audio, (bytes, bytearray, memoryview)):
        raise ValueError(
            f"audio is {kind}: wrap the content of a file in io.BytesIO(audio), or raw samples in "
            "numpy.frombuffer(audio, dtype)"
        )
    try:
        if hasattr(audio, "__array__") or hasattr(audio, "__array_interface__"):
            return np.asarray(audio)
        if hasattr(audio, "__dlpack__"):
            return np.from_dlpack(audio)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:  # on a GPU, with gradients
        raise ValueError(
            f"audio is a {kind} that cannot be used as a NumPy array ({error}): convert it first, "
            "e.g. with audio.detach().cpu().numpy()"
        ) from error
    raise ValueError(
        f"audio is of type {kind}: give a path, a file object, or an array of samples [samples]"
    )


def _checked_samples(audio: np.ndarray) -> np.ndarray:
    """Samples [samples] of an array [samples] or [1, samples] that are all finite numbers."""
    if audio.ndim == 0 or audio.size != audio.shape[-1]:
        raise ValueError(
            f"audio has the shape {audio.shape}, but one channel [samples] is expected: average "
            "or pick the channels, e.g. audio.mean(axis=CHANNELS)"
        )
    if audio.ndim > 1:
        audio = audio.reshape(-1)
    if audio.dtype.kind not in "fciub":
        audio = _as_numbers(audio)
    if audio.dtype.kind in "fc":
        _check_finite(audio)
    return audio


def _as_numbers(audio: np.ndarray) -> np.ndarray:
    """An array of Python objects as float32, as the reference takes it."""
    try:
        return audio.astype(np.float32)
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"audio is an array of {audio.dtype}, not of numbers: {error}") from error


def _check_finite(samples: np.ndarray) -> None:
    for start in range(0, len(samples), _BLOCK):
        finite = np.isfinite(samples[start : start + _BLOCK])
        if not finite.all():
            index = start + int(finite.argmin())
            raise ValueError(
                f"audio sample {index} is {samples[index]}: replace NaN and infinite samples "
                "first, e.g. with numpy.nan_to_num(audio, posinf=0, neginf=0)"
            )
