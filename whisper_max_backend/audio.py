"""What may be transcribed: decoding with clear errors, and a look at the samples."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import av
import numpy as np
from faster_whisper import transcribe as reference

_BLOCK = 1 << 20  # samples looked at in one go, so that hours of audio need little memory


class NoAudioStreamError(IndexError, ValueError):
    """A file that opens but holds no audio: a picture, a text, a film without sound.

    The reference fails with an IndexError there; the ValueError is what other bad files raise.
    """


def checked_audio(audio: Any, sampling_rate: int) -> np.ndarray:
    """Decode `audio` unless it is an array already, and refuse samples that are no numbers.

    Args:
        audio: Path, file object, or samples [samples].
        sampling_rate: Hz that files are resampled to.

    Returns:
        The array as given, or float32 [samples].

    Raises:
        NoAudioStreamError: The file holds no audio.
        ValueError: NaN or infinite samples, or an array of several channels.
        av.error.FFmpegError: PyAV's subclass of it for a file of unknown format (also a
            ValueError or EOFError), or one that cannot be opened (also an OSError).
    """
    if isinstance(audio, np.ndarray):
        _check_samples(audio)
        return audio
    try:
        with _old_objects_left_alone():
            decoded: np.ndarray = reference.decode_audio(audio, sampling_rate=sampling_rate)
    except IndexError as error:
        name = getattr(audio, "name", audio)
        raise NoAudioStreamError(
            f"{name!r} holds no audio stream: give a sound file, or a film with sound"
        ) from error
    except OSError:  # not found, a folder, no permission: PyAV's words are clear
        raise
    except av.error.FFmpegError as error:
        raise type(error)(
            error.errno or 0,
            f"this is no audio that can be decoded ({error.strerror})",
            error.filename,
            error.log,
        ) from error
    return decoded


@contextmanager
def _old_objects_left_alone() -> Iterator[None]:
    """Within, a garbage collection looks at objects made since only.

    The reference collects after every file, for the sake of its resampler; that takes longer the
    more objects a program has: 20 ms after nothing but imports.
    """
    if gc.get_freeze_count() > 0:  # the program does so itself
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _check_samples(audio: np.ndarray) -> None:
    if audio.ndim == 0 or (audio.ndim > 1 and audio.shape[0] != 1):
        raise ValueError(
            f"audio has the shape {audio.shape}, but one channel [samples] is expected: average "
            "or pick the channels, e.g. audio.mean(axis=CHANNELS)"
        )
    if audio.dtype.kind not in "fc":
        return
    samples = audio.reshape(-1)
    for start in range(0, len(samples), _BLOCK):
        finite = np.isfinite(samples[start : start + _BLOCK])
        if not finite.all():
            index = start + int(finite.argmin())
            raise ValueError(
                f"audio sample {index} is {samples[index]}: replace NaN and infinite samples "
                "first, e.g. with numpy.nan_to_num(audio, posinf=0, neginf=0)"
            )
