"""The parts of `whisper-max demo` that need no browser; compat_tests/demo uses the page itself."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import threading
from datetime import datetime, timezone
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from whisper_max_backend.comparison.choices import Choice
from whisper_max_backend.comparison.meters import Meter, Sample
from whisper_max_backend.comparison.worker import Heard
from whisper_max_backend.demo import rendering, runs
from whisper_max_backend.demo.history import Record, records_of, to_csv, to_json
from whisper_max_backend.demo.recording import Limits, RefusedRecording
from whisper_max_backend.demo.runs import Run, Side, Workshop
from whisper_max_backend.demo.turns import LineFullError, Turns

STOCK = Choice("ctranslate2", "cpu", "float32")
OURS = Choice("max", "cpu", "float32")
HOSTILE = "<script>alert('x')</script> & \"quotes\""


# Whose turn it is


def test_turns_come_in_the_order_of_joining() -> None:
    turns = Turns(longest=3)
    first, second, third = (turns.join() for _ in range(3))
    assert [turns.before(one) for one in (first, second, third)] == [0, 1, 2]
    assert turns.wait(first, 0)
    assert not turns.wait(second, 0)
    turns.leave(second)  # before its turn
    assert turns.before(third) == 1
    turns.leave(first)
    assert turns.wait(third, 0)
    assert turns.before(first) == 0, "who has left waits for nobody"


def test_a_full_line_takes_nobody_until_one_leaves() -> None:
    turns = Turns(longest=1)
    ticket = turns.join()
    with pytest.raises(LineFullError, match="1 comparisons wait already"):
        turns.join()
    turns.leave(ticket)
    turns.join()


def test_leaving_wakes_the_next() -> None:
    turns = Turns(longest=2)
    first, second = turns.join(), turns.join()
    threading.Timer(0.05, turns.leave, [first]).start()
    assert turns.wait(second, 30)


# Runs


@pytest.fixture
def workshop() -> Workshop:
    return Workshop(Limits(minutes=1, megabytes=1), loading={}, longest_line=2)


def test_a_bad_recording_ends_the_run_and_its_turn(workshop: Workshop, tmp_path: Path) -> None:
    noise = tmp_path / "noise"
    noise.write_bytes(b"this is no sound" * 100)
    recording = noise.open("rb")
    run = Run(workshop, "noise", recording, "tiny.en", [STOCK, OURS], {})
    assert run.wait(30)
    assert "cannot be read as audio" in run.problem
    assert [side.state for side in run.sides] == ["stopped", "stopped"]
    assert recording.closed
    assert workshop.turns.wait(workshop.turns.join(), 0)


def test_a_run_that_waits_can_be_stopped(workshop: Workshop, wav: Path) -> None:
    ticket = workshop.turns.join()
    run = Run(workshop, "speech", wav.open("rb"), "tiny.en", [STOCK, OURS], {})
    assert run.before == 1
    refused = wav.open("rb")
    with pytest.raises(LineFullError):
        Run(workshop, "speech", refused, "tiny.en", [STOCK, OURS], {})
    assert refused.closed
    run.stop()
    assert run.wait(30)
    assert not run.problem
    workshop.turns.leave(ticket)


def test_a_run_is_not_done_before_its_recording_is_read(
    workshop: Workshop, wav: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = threading.Event()

    def read_late(file: BinaryIO, limits: Limits) -> Any:
        assert read.wait(30)
        raise RefusedRecording("nothing in it")

    monkeypatch.setattr(runs, "read_samples", read_late)
    run = Run(workshop, "speech.wav", wav.open("rb"), "tiny.en", [STOCK, OURS], {})
    assert "Reading speech.wav" in rendering.run_status(run)
    read.set()
    assert run.wait(30)
    assert "nothing in it" in rendering.run_status(run)


# What is shown and kept


class Ended:
    """A comparison of two seconds that has ended; the second backend left out a word."""

    def __init__(self, name: str = "speech.wav", text: str = " Hello there") -> None:
        self.name, self.model, self.duration = name, "tiny.en", 2.0
        self.options = {"beam_size": 5, "vad_filter": False}
        self.began = datetime(2026, 11, 24, 12, tzinfo=timezone.utc)
        self.sides = [ended_side(STOCK, text, 1.0), ended_side(OURS, " Hello", 0.5)]


def ended_side(choice: Choice, text: str, seconds: float) -> Side:
    class Seen:
        samples = [Sample(0.1, 5_000_000, 1.5), Sample(0.2, 7_000_000, 0.5)]

    meter: Meter = Seen()  # type: ignore[assignment]
    side = Side(choice, "done", elapsed=seconds, load_seconds=0.25, language="en", meter=meter)
    side.segments.append(Heard(0.0, 2.0, text, seconds))
    return side


@pytest.fixture
def ended() -> Any:
    return Ended()


def test_records_have_the_figures(ended: Any) -> None:
    stock, ours = records_of(ended)
    assert (stock.backend, stock.text, stock.speed_up) == ("ctranslate2", "Hello there", 1.0)
    assert stock.word_differences is None
    assert (ours.backend, ours.text, ours.compared_with) == ("max", "Hello", STOCK.label)
    assert (ours.real_time_factor, ours.speed_up, ours.word_differences) == (0.25, 2.0, 0.5)
    assert (ours.peak_memory, ours.cpu, ours.gpu) == (7_000_000, 1.0, None)
    ended.sides[1].meter = None  # it never began
    assert [record.backend for record in records_of(ended)] == ["ctranslate2"]


def test_exports_read_back_as_they_were() -> None:
    run: Any = Ended(name='a,"b"\n.wav', text=' "Quoted",\nand naïve 日本')
    records = records_of(run)
    assert [Record(**one) for one in json.loads(to_json(records))] == records
    rows = list(csv.DictReader(io.StringIO(to_csv(records))))
    assert [row["text"] for row in rows] == [record.text for record in records]
    assert [row["recording"] for row in rows] == ['a,"b"\n.wav'] * 2
    assert rows[0]["gpu"] == ""


class Elements(HTMLParser):
    """The names of a page's elements, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def hostile_run() -> Any:
    run: Any = Ended(name=HOSTILE, text=f" {HOSTILE}")
    run.model = HOSTILE
    run.sides[1].problem = HOSTILE
    return run


def test_a_run_says_how_it_stands(ended: Any) -> None:
    ended.problem, ended.before, ended.stopped = "", 0, False
    second = ended.sides[1]
    assert "Done: speech.wav" in rendering.run_status(ended)
    for state, message in {
        "waiting": f"{OURS.label} is next",
        "loading": f"Loading tiny.en with {OURS.label}",
        "transcribing": f"{OURS.label} transcribes",
        "failed": "A backend failed",
    }.items():
        second.state = state
        assert message in rendering.run_status(ended)
    ended.before = 1
    assert "One other comparison is before yours" in rendering.run_status(ended)


@pytest.mark.parametrize(
    "page",
    [
        lambda: rendering.status(HOSTILE, "bad"),
        lambda: rendering.sides(hostile_run()),
        lambda: rendering.history(records_of(hostile_run())),
    ],
)
def test_what_comes_from_outside_is_text_and_no_markup(page: Any) -> None:
    elements = Elements(page())
    assert "script" not in elements.names
    assert HOSTILE in elements.text


def test_differences_are_marked(ended: Any) -> None:
    page = rendering.sides(ended)
    assert re.findall(r'<mark class="(\w+)" title="([^"]+)">([^<]+)<', page) == [
        ("missing", "left out", "there")
    ]
    assert re.findall(r'data-figure="speed-up">([^<]+)<', page) == ["1.00 ×", "2.00 ×"]


def test_the_history_carries_its_exports(ended: Any) -> None:
    assert "Nothing yet" in rendering.history([])
    records = records_of(ended)
    page = rendering.history([*records, records[0]])
    assert page.count("<tr>") == 4
    found = re.findall(r"data:(\S+);base64,([^\"]+)", page)
    exports = {kind: base64.b64decode(content).decode() for kind, content in found}
    assert exports["application/json"] == to_json([*records, records[0]])
    assert exports["text/csv"] == to_csv([*records, records[0]])
