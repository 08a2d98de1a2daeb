"""The clock that streams are played by, and what is promised."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.live import whisperlivekit
from benchmarks.live.command import broken
from benchmarks.live.lagging import Passage
from benchmarks.live.play import Run, play
from benchmarks.live.stream import Stream
from benchmarks.speech import RATE, speech
from compat_tests.support.models import model_directory
from whisper_max_backend.live import LiveWord, Update

STREAM = Stream(
    np.zeros(4 * RATE, np.float32),
    [Passage(0.0, 4.0, "one two")],
    [("one", 1.0), ("two", 2.0)],
    0.0,
)


class Scripted:
    """Commits a word a second, and needs some time for each piece."""

    def __init__(self, seconds: float) -> None:
        self.pieces: list[int] = []
        self._seconds = seconds
        self._words = [LiveWord(f" {text}", 0.0, 0.0, 1.0) for text in ("one", "two")]

    def push(self, samples: np.ndarray) -> Update:
        self.pieces.append(len(samples))
        time.sleep(self._seconds)
        word, self._words = self._words[:1], self._words[1:]
        return Update(word, self._words[:1])

    def finish(self) -> Update:
        return Update(self._words, [])

    def cpu_seconds(self) -> float:
        return 2.0


def test_words_are_late_by_the_clock() -> None:
    live = Scripted(0.01)
    run = play(live, STREAM, "ours", 1.0)
    assert live.pieces == [RATE] * 4
    assert run.piece_seconds == 1.0
    assert run.error_rate == 0.0
    assert run.delay_seconds == pytest.approx(0.01, abs=0.1)
    assert run.cpu_seconds == 0.5
    assert run.erased == 0


def test_what_is_spoken_meanwhile_comes_with_the_next_piece() -> None:
    live = Scripted(0.5)
    run = play(live, STREAM, "theirs", 0.25)
    assert 1 < run.piece_seconds / 0.25 < 4, live.pieces
    assert sum(live.pieces) == 4 * RATE
    assert run.real_time_factor > 0.5


def test_a_stopped_clock_waits() -> None:
    live = Scripted(0.3)
    run = play(live, STREAM, "theirs", 0.25, stopped=True)
    assert run.piece_seconds == 0.25
    assert run.delay_seconds == pytest.approx((0.25 - 1 + 0.5 - 2) / 2)


RUN = Run("", 1.0, 1.0, 0.05, 1.0, 1.0, 2.0, 0.1, 0.2, 0.2, None)
OURS, THEIRS = (replace(RUN, side=side) for side in ("local-agreement", whisperlivekit.NAME))


def test_whisperlivekit_is_to_be_later_and_to_take_more() -> None:
    slow = replace(THEIRS, delay_seconds=3.0, cpu_seconds=1.1)
    assert broken([OURS, slow], 0.05) == []
    (late,) = broken([OURS, replace(slow, delay_seconds=0.9)], 0.05)
    assert "later than WhisperLiveKit" in late
    little = replace(slow, cpu_seconds=0.9)
    (work,) = broken([OURS, little], 0.05)
    assert "4.5 times the work" in work
    assert broken([OURS, replace(little, piece_seconds=2.0)], 0.05) == [], "it did not keep up"


def test_an_absent_peer_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whisperlivekit, "PYTHON", whisperlivekit.PYTHON / "nowhere")
    assert "pip install whisperlivekit" in whisperlivekit.why_absent()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(whisperlivekit.why_absent() != "", reason=whisperlivekit.why_absent())
def test_whisperlivekit_runs_as_it_is() -> None:
    folder = str(model_directory("base"))
    samples = speech("jfk")
    with whisperlivekit.opened(folder, "int8", "en", 1.0, detection=False) as live:
        updates = [live.push(samples[: 6 * RATE]), live.push(samples[6 * RATE :])]
        updates.append(live.finish())
    assert "my fellow Americans" in "".join(update.committed_text for update in updates)
    assert live.cpu_seconds() > 0.1
    wrong = whisperlivekit.opened(folder, "bfloat16", "en", 1.0, detection=False)
    with pytest.raises(whisperlivekit.PeerFailed, match="it chooses int8"), wrong:
        pass
