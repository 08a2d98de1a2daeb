"""The processors in place of those of whisper_streaming and SimulStreaming, called as they call."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from compat_tests.support.live import pieces
from compat_tests.support.models import our_model
from compat_tests.support.recordings import SAMPLING_RATE, load
from compat_tests.test_live import alike, offline
from whisper_max_backend.adapters.online_processors import (
    SimulStreamingProcessor,
    WhisperStreamingProcessor,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def results(online: Any, samples: np.ndarray) -> list[Any]:
    """Of each second, and of the end."""
    found = []
    for piece in pieces(samples, 1.0):
        online.insert_audio_chunk(piece)
        found.append(online.process_iter())
    return [*found, online.finish()]


def test_whisper_streaming() -> None:
    online = WhisperStreamingProcessor(our_model("base"), language="en")
    assert online.SAMPLING_RATE == SAMPLING_RATE
    for offset in (None, 100.0):  # a server begins anew with each client, a detector with a time
        online.init(offset)
        found = results(online, load("jfk"))
        assert (None, None, "") in found, "nothing is committed at once"
        given = [one for one in found if one[0] is not None]
        assert alike("".join(text for *_, text in given), offline("jfk")) > 0.85
        times = [time for one in given for time in one[:2]]
        assert times == sorted(times)
        first = offset or 0.0
        assert first <= times[0] < first + 2
        assert first + 9 < times[-1] <= first + 11


def test_simulstreaming() -> None:
    online = SimulStreamingProcessor(our_model("base"), language="en")
    online.insert_audio_chunk(load("jfk")[:8000])
    online.warmup(load("austen")[: 3 * SAMPLING_RATE])  # is no part of the stream
    online.init(offset=5.0)
    found = results(online, load("jfk"))
    assert {} in found
    given = [one for one in found if one]
    assert alike("".join(one["text"] for one in given), offline("jfk")) > 0.85
    for one in given:
        words = one["words"]
        assert "".join(word["text"] for word in words) == one["text"]
        assert (one["start"], one["end"]) == (words[0]["start"], words[-1]["end"])
        assert 5 <= one["start"] <= one["end"] <= 16


def test_what_is_inserted_waits_for_the_next_call() -> None:
    online = WhisperStreamingProcessor(our_model("base"), language="en")
    for piece in pieces(load("jfk"), 0.04):
        online.insert_audio_chunk(piece)
    _, _, text = online.process_iter()
    _, _, rest = online.finish()
    assert alike(text + rest, offline("jfk")) > 0.85
    assert online.finish() == (None, None, "")


def test_options_are_those_of_a_live_transcriber() -> None:
    with pytest.raises(ValueError, match="unknown policy 'x'"):
        SimulStreamingProcessor(our_model("base"), policy="x")
