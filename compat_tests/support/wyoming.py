"""What a client of a Wyoming server sends, and waits for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from wyoming.asr import Transcribe, Transcript, TranscriptStop
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.event import Event

from compat_tests.support.recordings import SAMPLING_RATE


def pcm(samples: np.ndarray) -> bytes:
    return (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()


def chunks(audio: bytes, rate: int = SAMPLING_RATE, channels: int = 1) -> Iterator[Event]:
    """A tenth of a second each."""
    size = rate // 10 * 2 * channels
    for start in range(0, len(audio), size):
        part = audio[start : start + size]
        yield AudioChunk(rate=rate, width=2, channels=channels, audio=part).event()


def start(rate: int = SAMPLING_RATE, channels: int = 1) -> Event:
    return AudioStart(rate=rate, width=2, channels=channels).event()


async def until(client: Any, kind: Any) -> list[Event]:
    """What comes up to the first event of a kind, or the end of the connection."""
    events: list[Event] = []
    while (event := await client.read_event()) is not None:
        events.append(event)
        if kind.is_type(event.type):
            break
    return events


async def send(client: Any, *events: Event) -> None:
    for event in events:
        await client.write_event(event)


async def ask(client: Any, samples: np.ndarray, language: str | None = None) -> str:
    """A request from its beginning to its end."""
    await send(client, Transcribe(language=language).event(), start())
    await send(client, *chunks(pcm(samples)), AudioStop().event())
    events = await until(client, TranscriptStop)
    return Transcript.from_event(events[-2]).text
