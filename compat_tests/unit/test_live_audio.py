"""What the command `live` hears; a microphone by a stand-in for sounddevice."""

from __future__ import annotations

import io
import os
import sys
import threading
import types
from typing import Any

import click
import numpy as np
import pytest

from compat_tests.support.randomness import rng
from whisper_max_backend.cli import live_audio

RATE = 44_100


class PortAudioError(Exception):
    """As sounddevice's."""


class Stream:
    """A microphone that somebody speaks into from a thread, as PortAudio does it."""

    samples = np.zeros(0, np.int16)
    overflow = False
    open = 0

    def __init__(self, rate: int, channels: int, dtype: str, callback: Any) -> None:
        assert (rate, channels, dtype) == (RATE, 1, "int16")
        self.callback = callback

    def start(self) -> None:
        threading.Thread(target=self._speak).start()

    def _speak(self) -> None:
        status = types.SimpleNamespace(input_overflow=self.overflow)
        block = np.empty((1000, 1), np.int16)  # the same memory each time
        for start in range(0, len(self.samples), len(block)):
            block[:, 0] = self.samples[start : start + len(block)]
            self.callback(block, len(block), None, status)

    def __enter__(self) -> Stream:
        type(self).open += 1
        return self

    def __exit__(self, *_: object) -> None:
        type(self).open -= 1


@pytest.fixture
def sounddevice(monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    module = types.SimpleNamespace(
        PortAudioError=PortAudioError,
        InputStream=type("Own", (Stream,), {}),
        query_devices=lambda kind: {"default_samplerate": float(RATE)},
    )
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    return module


def test_a_microphone(sounddevice: types.SimpleNamespace, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing of it is missed, and it is closed in the end."""
    own = sounddevice.InputStream
    own.samples = rng().integers(-(2**15), 2**15, 20_000).astype(np.int16)
    heard = live_audio.microphone()
    found = np.zeros(0, np.int16)
    while len(found) < len(own.samples):
        piece, rate = next(heard)
        assert rate == RATE
        found = np.concatenate([found, piece])
    np.testing.assert_array_equal(found, own.samples)
    assert own.open == 1
    heard.close()
    assert own.open == 0
    assert "some is lost" not in caplog.text


def test_lost_audio_is_told(
    sounddevice: types.SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    own = sounddevice.InputStream
    own.samples, own.overflow = np.zeros(1000, np.int16), True
    next(live_audio.microphone())
    assert "some is lost" in caplog.text


def test_no_microphone(sounddevice: types.SimpleNamespace) -> None:
    def query(kind: str) -> Any:
        raise PortAudioError("Error querying device -1")

    sounddevice.query_devices = query
    with pytest.raises(click.ClickException, match=r"no microphone .* device -1"):
        live_audio.microphone()


def test_no_sounddevice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(click.ClickException, match=r"whisper-max-backend\[microphone\]"):
        live_audio.microphone()


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces may end within a sample."""
    samples = rng().integers(-(2**15), 2**15, 20_001).astype(np.int16)
    reading, writing = os.pipe()
    content = samples.tobytes()

    def write() -> None:
        with open(writing, "wb", buffering=0) as pipe:
            for start in range(0, len(content), 333):
                pipe.write(content[start : start + 333])

    threading.Thread(target=write).start()
    with open(reading, "rb", buffering=0) as pipe:
        monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=pipe))
        found = [piece for piece, rate in live_audio.standard_input() if rate == live_audio.RATE]
    np.testing.assert_array_equal(np.concatenate(found), samples)


def test_nothing_on_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO()))
    assert list(live_audio.standard_input()) == []
