"""Where a recording has speech: by the reference's Silero model, and by its rules.

The reference (faster_whisper/vad.py) copies the recording three times to ask the model, in one
thread. Here it is asked about some seconds at a time, by several, which gives the same numbers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

import numpy as np
import numpy.typing as npt
from faster_whisper.vad import VadOptions

from .silero import BEGINNING, silero
from .system.cores import thread_count

FRAME = 512
"""Samples that the model judges at once."""
_CONTEXT = 64
"""Samples before a frame, which it sees, too."""
_BLOCK = 250 * FRAME
"""Samples that it is asked about in one go."""
_RATE = 16000
_SHORT_SILENCE = 0.098
"""Seconds of silence at which speech that lasts too long may be cut."""

Speech = dict[str, int]
"""A part of a recording that has speech: `start` and `end`, in samples."""
Probabilities = npt.NDArray[np.float32]
"""Of speech, ``[frames]``."""


class SpeechModel:
    """The Silero model on its way through a recording, whose frames come in their order."""

    def __init__(self) -> None:
        self._model = silero()
        self._state = BEGINNING
        self._context: np.ndarray | None = None

    def probabilities(self, samples: np.ndarray) -> Probabilities:
        """Of speech in each of the next frames, ``[frames * FRAME]`` samples, float32."""
        return self.decode(self.encode(self.frames(samples)))

    def frames(self, samples: np.ndarray) -> np.ndarray:
        """The next frames, each with the samples before it: ``[frames, _CONTEXT + FRAME]``."""
        if self._context is None:  # of the samples' type: the model refuses any but float32
            self._context = np.zeros(_CONTEXT, samples.dtype)
        audio = np.concatenate([self._context, samples])
        self._context = audio[-_CONTEXT:].copy()
        return np.lib.stride_tricks.sliding_window_view(audio, _CONTEXT + FRAME)[::FRAME]

    def encode(self, frames: np.ndarray) -> np.ndarray:
        """What `decode` needs of frames, which any thread may make of any of them."""
        return self._model.encode(frames)

    def decode(self, encoded: np.ndarray) -> Probabilities:
        """Of speech in the next frames."""
        found, self._state = self._model.decode(encoded, self._state)
        return found.ravel()


class SpeechFinder:
    """Finds speech with several threads, while the recording is still being decoded."""

    def __init__(self, threads: int = 0) -> None:
        """With so many threads; 0 for one a core."""
        count = thread_count(threads)
        self._model = SpeechModel()
        self._pool = ThreadPoolExecutor(count)
        self._most = 2 * count  # blocks that wait
        self._encoded: deque[Future[np.ndarray]] = deque()
        self._rest: np.ndarray | None = None  # samples of a block that is not complete
        self._found: list[Probabilities] = []

    def __enter__(self) -> SpeechFinder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def push(self, samples: np.ndarray) -> None:
        """The next samples, float32 ``[samples]``."""
        if self._rest is not None:
            samples = np.concatenate([self._rest, samples])
        end = len(samples) // _BLOCK * _BLOCK
        for start in range(0, end, _BLOCK):
            self._encode(samples[start : start + _BLOCK])
        self._rest = samples[end:].copy()

    def probabilities(self) -> Probabilities:
        """Of speech in each frame of what was pushed; its end is padded with zeros.

        They are those that `get_speech_timestamps` of the reference goes by.
        """
        rest = np.zeros(0, np.float32) if self._rest is None else self._rest
        whole = len(rest) // FRAME * FRAME
        if whole:
            self._encode(rest[:whole])
        last = np.zeros(FRAME, rest.dtype)
        last[: len(rest) - whole] = rest[whole:]
        last[-_CONTEXT:] = 0  # the reference's model forgets these samples
        self._encode(last)
        while self._encoded:
            self._decode_next()
        return np.concatenate(self._found)

    def _encode(self, block: np.ndarray) -> None:
        """Have a block encoded, once few enough blocks wait: each needs memory."""
        while len(self._encoded) >= self._most:
            self._decode_next()
        self._encoded.append(self._pool.submit(self._model.encode, self._model.frames(block)))

    def _decode_next(self) -> None:
        self._found.append(self._model.decode(self._encoded.popleft().result()))


def speech_probabilities(samples: np.ndarray) -> Probabilities:
    """Of speech in each frame of a recording, float32 ``[samples]``, as of `SpeechFinder`."""
    with SpeechFinder() as finder:
        finder.push(samples)
        return finder.probabilities()


def speech_timestamps(
    probabilities: Probabilities, samples: int, options: VadOptions
) -> list[Speech]:
    """What the reference's `get_speech_timestamps` finds in a recording of so many samples."""
    found = _speeches(probabilities, samples, options)
    _pad(found, samples, _RATE * options.speech_pad_ms / 1000)
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
