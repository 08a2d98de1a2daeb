"""Where a recording has speech: by the reference's Silero model, and by its rules.

The reference (faster_whisper/vad.py) copies the recording three times to ask the model, in one
thread. Here it is asked about some seconds at a time, by several, which gives the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
from faster_whisper.vad import VadOptions

from .audio import Samples
from .silero import BEGINNING, silero
from .system.cores import thread_count

FRAME = 512
"""Samples that the model judges at once."""
_CONTEXT = 64
"""Samples before a frame, which it sees, too."""
_AT_ONCE = 500
"""Frames that it is asked about in one go."""
_RATE = 16000
_SHORT_SILENCE = 0.098
"""Seconds of silence at which speech that lasts too long may be cut."""

Speech = dict[str, int]
"""A part of a recording that has speech: `start` and `end`, in samples."""


class SpeechModel:
    """The Silero model on its way through a recording, whose frames come in their order."""

    def __init__(self) -> None:
        self._model = silero()
        self._state = BEGINNING
        self._context: np.ndarray | None = None

    def probabilities(self, samples: np.ndarray) -> npt.NDArray[np.float32]:
        """Of speech in each of the next frames, ``[frames * FRAME]`` samples, float32."""
        if self._context is None:  # of the samples' type: the model refuses any but float32
            self._context = np.zeros(_CONTEXT, samples.dtype)
        encoded = self._model.encode(_frames(self._context, samples))
        self._context = samples[-_CONTEXT:].copy()
        found, self._state = self._model.decode(encoded, self._state)
        return found.ravel()


def _frames(context: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """Frames ``[frames, _CONTEXT + FRAME]``, each with the samples before it."""
    audio = np.concatenate([context, samples])
    return np.lib.stride_tricks.sliding_window_view(audio, _CONTEXT + FRAME)[::FRAME]


def speech_probabilities(samples: Samples, threads: int = 0) -> npt.NDArray[np.float32]:
    """Of speech in each frame of a recording, float32 ``[samples]``; its end is padded with zeros.

    They are those that `get_speech_timestamps` of the reference goes by. 0 threads are one a core.
    """
    model = silero()
    whole = len(samples) // FRAME * FRAME
    last = np.zeros(FRAME, samples.dtype)
    last[: len(samples) - whole] = samples[whole : len(samples)]
    last[-_CONTEXT:] = 0  # the reference's model forgets these samples

    def context(place: int) -> np.ndarray:
        return samples[place - _CONTEXT : place] if place else np.zeros(_CONTEXT, samples.dtype)

    def encode(start: int) -> np.ndarray:
        block = samples[start : min(start + _AT_ONCE * FRAME, whole)]
        return model.encode(_frames(context(start), block))

    found, state = [], BEGINNING
    with ThreadPoolExecutor(thread_count(threads)) as pool:
        for encoded in pool.map(encode, range(0, whole, _AT_ONCE * FRAME)):
            probabilities, state = model.decode(encoded, state)
            found.append(probabilities.ravel())
    probabilities, _ = model.decode(model.encode(_frames(context(whole), last)), state)
    return np.concatenate([*found, probabilities.ravel()])


def speech_timestamps(samples: Samples, options: VadOptions, threads: int = 0) -> list[Speech]:
    """What the reference's `get_speech_timestamps` finds in a recording, float32 ``[samples]``."""
    found = _speeches(speech_probabilities(samples, threads), len(samples), options)
    _pad(found, len(samples), _RATE * options.speech_pad_ms / 1000)
    return found


def _speeches(probabilities: Iterable[float], samples: int, options: VadOptions) -> list[Speech]:
    """Speech as the thresholds have it, without padding."""
    threshold, low = options.threshold, options.neg_threshold
    if low is None:
        low = max(threshold - 0.15, 0.01)
    least_speech = _RATE * options.min_speech_duration_ms / 1000
    padding = _RATE * options.speech_pad_ms / 1000
    most_speech = _RATE * options.max_speech_duration_s - FRAME - 2 * padding
    least_silence = _RATE * options.min_silence_duration_ms / 1000

    found: list[Speech] = []
    start: int | None = None
    silent_since = 0  # 0: it is not silent
    cut = resumed = 0  # the last silence long enough to cut at, and the speech after it

    for index, probability in enumerate(probabilities):
        now = FRAME * index
        if probability >= threshold and silent_since:
            silent_since = 0
            if resumed < cut:
                resumed = now
        if start is None:
            if probability >= threshold:
                start = now
            continue
        if now - start > most_speech:
            if not cut:
                found.append({"start": start, "end": now})
                start, silent_since, resumed = None, 0, 0
                continue
            found.append({"start": start, "end": cut})
            start = resumed if resumed >= cut else None
            silent_since = cut = resumed = 0
        if probability < low and start is not None:
            silent_since = silent_since or now
            if now - silent_since > _RATE * _SHORT_SILENCE:
                cut = silent_since
            if now - silent_since >= least_silence:
                if silent_since - start > least_speech:
                    found.append({"start": start, "end": silent_since})
                start = None
                silent_since = cut = resumed = 0

    if start is not None and samples - start > least_speech:
        found.append({"start": start, "end": samples})
    return found


def _pad(speeches: list[Speech], samples: int, padding: float) -> None:
    """Lengthens each on both sides; where two are too near for that, by half of what is between."""
    if speeches:
        speeches[0]["start"] = int(max(0, speeches[0]["start"] - padding))
        speeches[-1]["end"] = int(min(samples, speeches[-1]["end"] + padding))
    for one, following in zip(speeches, speeches[1:], strict=False):
        silence = following["start"] - one["end"]
        if silence < 2 * padding:
            one["end"] += silence // 2
            following["start"] = max(0, following["start"] - silence // 2)
        else:
            one["end"] = int(min(samples, one["end"] + padding))
            following["start"] = int(max(0, following["start"] - padding))
