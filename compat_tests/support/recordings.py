"""The recordings that the tests transcribe: float32 mono at 16 kHz.

Files are in `compat_tests/audio/` (its README names sources and licences); the rest is built from
them, always the same samples.
"""

from __future__ import annotations

import functools
import wave
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from faster_whisper.audio import decode_audio

AUDIO = Path(__file__).parents[1] / "audio"
SAMPLING_RATE = 16_000


@dataclass(frozen=True)
class Recording:
    """One recording; `language` is what is spoken (None: nothing, or several languages)."""

    name: str
    language: str | None
    make: Callable[[], np.ndarray]


def audio_file(name: str) -> Path:
    """Path of a committed file, `name` with its extension."""
    return AUDIO / name


@functools.cache
def _decoded(name: str) -> np.ndarray:
    return decode_audio(str(audio_file(name)), sampling_rate=SAMPLING_RATE)


def _pause(seconds: float) -> np.ndarray:
    """A pause that is not digital silence: a faint hiss, as between takes."""
    length = int(seconds * SAMPLING_RATE)
    return np.random.default_rng(length).normal(0, 1e-4, length).astype(np.float32)


def _spaced(names: tuple[str, ...], seconds: float) -> np.ndarray:
    parts = [part for name in names for part in (_decoded(name), _pause(seconds))]
    return np.concatenate(parts[:-1])


def _music(seconds: float = 20.0) -> np.ndarray:
    """Plucked chords under a melody, 120 beats a minute, no voice."""
    time = np.arange(int(seconds * SAMPLING_RATE)) / SAMPLING_RATE
    out = np.zeros_like(time)

    def pluck(start: float, midi: int, length: float, level: float) -> None:
        frequency = 440.0 * 2 ** ((midi - 69) / 12)
        first, last = (int(t * SAMPLING_RATE) for t in (start, min(start + length, seconds)))
        t = time[: last - first]
        for harmonic in range(1, 7):
            decay = np.exp(-t * (1.5 + 0.8 * harmonic))
            out[first:last] += (
                level / harmonic * decay * np.sin(2 * np.pi * frequency * harmonic * t)
            )

    chords = ((57, 60, 64), (53, 57, 60), (48, 55, 64), (55, 59, 62))
    melody = (76, 72, 74, 76, 77, 76, 74, 72, 71, 74, 72, 69, 71, 72, 74, 71)
    for beat in range(int(seconds * 2)):
        if beat % 2 == 0:
            for note in chords[beat // 4 % len(chords)]:
                pluck(beat / 2, note, 1.4, 0.10)
        pluck(beat / 2, melody[beat % len(melody)], 0.7, 0.16)
    return out.astype(np.float32)


def _noisy() -> np.ndarray:
    """The Kennedy clip under white noise, 6 dB below the speech."""
    speech = _decoded("jfk.flac")
    noise = np.random.default_rng(7).normal(0, 1, len(speech))
    return (speech + noise * speech.std() * 10 ** (-6 / 20)).astype(np.float32)


def _over_music() -> np.ndarray:
    speech = _decoded("beckett.opus")
    speech = speech / np.abs(speech).max() * np.float32(0.7)
    return speech + 0.25 * _music(20.0)[: len(speech)]


def _long_pauses() -> np.ndarray:
    """Austen's sentences, a few seconds apart, after a long wait at the start."""
    speech = _decoded("austen.opus")
    cuts = [0, *(int(t * SAMPLING_RATE) for t in (7.1, 10.09, 15.39)), len(speech)]
    pauses = (4.0, 5.0, 3.0, 6.0)
    parts = []
    for start, end, seconds in zip(cuts[:-1], cuts[1:], pauses, strict=True):
        parts += [_pause(seconds), speech[start:end]]
    return np.concatenate([*parts, _pause(3.0)])


def _bilingual() -> np.ndarray:
    """French, then 20 s of the English dialogue."""
    return _spaced(("french.opus", "dialogue.opus"), 1.0)[: 50 * SAMPLING_RATE]


def _very_short() -> np.ndarray:
    """The word "forward", 0.6 s."""
    return _decoded("command.flac")[int(0.75 * SAMPLING_RATE) : int(1.35 * SAMPLING_RATE)]


def _file(name: str, extension: str, language: str) -> Recording:
    return Recording(name, language, lambda: _decoded(f"{name}.{extension}"))


RECORDINGS = {
    recording.name: recording
    for recording in (
        _file("jfk", "flac", "en"),
        _file("command", "flac", "en"),
        _file("austen", "opus", "en"),
        _file("beckett", "opus", "en"),
        _file("moby", "opus", "en"),
        _file("dialogue", "opus", "en"),
        _file("french", "opus", "fr"),
        _file("russian", "opus", "ru"),
        Recording("very_short", "en", _very_short),
        Recording("noisy", "en", _noisy),
        Recording("over_music", "en", _over_music),
        Recording("long_pauses", "en", _long_pauses),
        Recording(
            "two_minutes",
            "en",
            lambda: _spaced(("alice.opus", "dialogue.opus", "austen.opus", "moby.opus"), 1.0),
        ),
        Recording("bilingual", None, _bilingual),
        Recording("music", None, _music),
        Recording("silence", None, lambda: np.zeros(8 * SAMPLING_RATE, np.float32)),
    )
}


@functools.cache
def load(name: str) -> np.ndarray:
    """Samples of a recording, float32 [samples], read-only."""
    samples = RECORDINGS[name].make().copy()
    samples.flags.writeable = False
    return samples


def write_wav(path: Path, samples: np.ndarray) -> None:
    """A WAV file of 16 bits with `samples`, float32 [samples]."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLING_RATE)
        file.writeframes((samples * 32767).round().astype("<i2").tobytes())
