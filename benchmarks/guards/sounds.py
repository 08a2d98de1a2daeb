"""Sounds without speech, made of numbers: the same ones every time. Float32 [samples] at 16 kHz."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from benchmarks.speech import RATE

_COLOURS = {"blue": -1.0, "white": 0.0, "pink": 1.0, "brown": 2.0}
"""Noise by the power of 1 / frequency that its power falls with."""
_ROWS, _COLUMNS = (697, 770, 852, 941), (1209, 1336, 1477)
_KEYS = ("123", "456", "789", "*0#")
"""Of a telephone: a key has the frequencies of its row and its column, in Hz."""

_Samples = npt.NDArray[np.float64]


def sounds() -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    """Each sound by its name."""
    for name, samples in _sounds():
        yield name, samples.astype(np.float32)


def _sounds() -> Iterator[tuple[str, _Samples]]:
    for seed, (colour, power) in enumerate(_COLOURS.items()):
        for decibels, seconds in ((-20, 12), (-35, 40), (-55, 7)):
            samples = noise(power, seconds, seed + seconds) * 10 ** (decibels / 20)
            yield f"{colour} noise, {decibels} dB", samples
    yield "silence", np.zeros(8 * RATE)
    yield "long silence", np.zeros(40 * RATE)
    yield "hum of 50 Hz", 0.1 * _harmonics(50, 8, 15)
    yield "hum of 60 Hz with noise", 0.05 * _harmonics(60, 4, 33) + 0.01 * noise(1, 33, 1)
    for frequency, seconds in ((250, 2), (440, 5), (1000, 31)):
        yield f"tone of {frequency} Hz", 0.3 * _harmonics(frequency, 1, seconds)
    yield "sweep", 0.2 * np.sin(2 * np.pi * (100 + 190 * _time(10)) * _time(10))
    yield "clicks", _clicks(10, 2)
    yield "many clicks", _clicks(35, 3)
    yield "dialling", np.concatenate([_key(key) for key in "18005551234#"])
    ringing = (_time(20) % 6 < 2) * (_harmonics(440, 1, 20) + _harmonics(480, 1, 20))
    yield "ringing", 0.2 * ringing
    gusts = np.interp(_time(40), np.arange(41), np.random.default_rng(4).uniform(0.1, 1, 41))
    yield "wind", 0.15 * gusts * noise(1.6, 40, 5)
    syllables = 1 + np.sin(2 * np.pi * 4 * _time(25))
    yield "noise that swells four times a second", 0.05 * syllables * noise(1, 25, 6)
    turns = np.cumsum(30 + 3 * np.sin(_time(12))) / RATE
    engine = sum(np.sin(2 * np.pi * k * turns + k) / k for k in range(1, 20))
    yield "engine", 0.05 * engine + 0.01 * noise(1, 12, 7)


def noise(power: float, seconds: float, seed: int) -> _Samples:
    """Noise of a colour, with a standard deviation of 1."""
    count = int(seconds * RATE)
    spectrum = np.fft.rfft(np.random.default_rng(seed).normal(size=count))
    frequencies = np.fft.rfftfreq(count)
    frequencies[0] = frequencies[1]
    samples: _Samples = np.fft.irfft(spectrum * frequencies ** (-power / 2), count)
    return samples / samples.std()


def _time(seconds: float) -> _Samples:
    return np.arange(int(seconds * RATE)) / RATE


def _harmonics(frequency: float, count: int, seconds: float) -> _Samples:
    time = _time(seconds)
    total = np.zeros_like(time)
    for k in range(1, count + 1):
        total += np.sin(2 * np.pi * frequency * k * time) / k
    return total


def _clicks(seconds: int, seed: int) -> _Samples:
    """About one a second, over a faint hiss."""
    chance = np.random.default_rng(seed)
    samples = chance.normal(0, 1e-4, seconds * RATE)
    for start in chance.integers(0, len(samples) - 400, seconds):
        samples[start : start + 400] += chance.normal(0, 0.3, 400) * np.exp(-np.arange(400) / 80)
    return samples


def _key(key: str) -> _Samples:
    row = next(index for index, keys in enumerate(_KEYS) if key in keys)
    pair = (_ROWS[row], _COLUMNS[_KEYS[row].index(key)])
    tone = sum(_harmonics(frequency, 1, 0.2) for frequency in pair)
    return np.pad(0.2 * tone, (0, RATE // 10))
