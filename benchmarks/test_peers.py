"""Other programs on the same weights, each in a process of its own, in turns with this package."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks.conftest import MODELS, need_model
from benchmarks.paired import PAUSE, record
from benchmarks.peers import Model, peers, versions
from benchmarks.peers.faster_whisper import FasterWhisper
from benchmarks.peers.process import Heard, PeerFailed, PeerProcess
from benchmarks.speech import RATE, speech
from compat_tests.support.models import model_directory
from whisper_max_backend.comparison.words import compare_words

ROUNDS = 3
OURS = FasterWhisper("whisper_max_backend", "int8")
ALSO_OURS = FasterWhisper("whisper_max_backend", "bfloat16")
STOCK = "faster-whisper"


class Sides:
    """This package and all peers with one model; why those are absent that are."""

    def __init__(self, model: Model) -> None:
        self.absent: dict[str, str] = {}
        self.running: dict[str, PeerProcess] = {}
        for peer in (OURS, ALSO_OURS, *peers()):
            reason = peer.why_absent()
            if not reason:
                try:
                    self.running[peer.name] = PeerProcess(peer, model)
                except PeerFailed as error:
                    reason = str(error)
            if reason:
                self.absent[peer.name] = reason

    def end(self) -> None:
        """End all processes."""
        for process in self.running.values():
            process.end()

    def transcribe(self, name: str, recording: str, beams: int) -> Heard | None:
        """What a peer hears; None if it is absent, or fails now, which makes it so."""
        if name not in self.running:
            return None
        try:
            return self.running[name].transcribe(recording, beams)
        except PeerFailed as error:
            self.absent[name] = str(error)
            del self.running[name]
            return None


@pytest.fixture(scope="module", params=MODELS)
def sides(request: pytest.FixtureRequest) -> Iterator[Sides]:
    need_model(request.param)
    result = Sides(Model(request.param, model_directory(request.param)))
    yield result
    result.end()


@pytest.mark.benchmark(group="other programs")
@pytest.mark.parametrize("beams", [5, 1])
@pytest.mark.parametrize("recording", ["jfk", "ten"])
def test_peers(benchmark: Any, sides: Sides, recording: str, beams: int) -> None:
    """Medians of all that run; `ratio` is that of the better stock faster-whisper over ours."""
    heard: dict[str, list[Heard]] = {name: [] for name in sides.running}

    def take_turns() -> None:
        for name in list(sides.running):
            time.sleep(PAUSE)
            result = sides.transcribe(name, recording, beams)
            if result is not None:
                heard[name].append(result)

    take_turns()  # what a program makes on first use is no part of its time
    for results in heard.values():
        results.clear()
    benchmark.extra_info["load_average_before"] = os.getloadavg()[0]
    benchmark.pedantic(take_turns, rounds=ROUNDS)
    benchmark.extra_info["load_average_after"] = os.getloadavg()[0]

    assert OURS.name in sides.running, sides.absent[OURS.name]
    ours = statistics.median(one.seconds for one in heard[OURS.name])
    text = heard[OURS.name][-1].text
    rows: list[dict[str, Any]] = []
    for name in sides.running:
        median = statistics.median(one.seconds for one in heard[name])
        rows.append(
            {
                "name": name,
                "seconds": median,
                "all_seconds": [one.seconds for one in heard[name]],
                "ratio": median / ours,
                "words_unlike_ours": compare_words(text, heard[name][-1].text).error_rate,
            }
        )
    best = min(row["seconds"] for row in rows if row["name"].startswith(STOCK))
    record(
        benchmark,
        ours,
        best,
        audio_seconds=len(speech(recording)) / RATE,
        programs=rows,
        absent=dict(sides.absent),
        versions=versions(),
    )
    assert all(one.text for results in heard.values() for one in results)
