"""Who speaks on the page of `whisper-max demo`: room, time, bad sound, and what is shown."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from whisper_max_backend.assets import SAMPLE
from whisper_max_backend.demo import rendering
from whisper_max_backend.demo import speakers as module
from whisper_max_backend.demo.sessions import Sessions
from whisper_max_backend.demo.speakers import NoRoomError, Speaker, SpeakerLimits, Speakers
from whisper_max_backend.demo.visitors import COOKIE
from whisper_max_backend.live import LiveWord, Update, streams

RATE = 16_000
SECOND = np.zeros(RATE, np.int16)
NOTHING = np.zeros(0, np.int16)


def a_model(multilingual: bool = True) -> Any:
    model = SimpleNamespace(device="cpu", num_workers=1, is_multilingual=multilingual)
    return SimpleNamespace(model=model)


class Transcriber:
    """Its words are how many seconds it got at a time; `gate` holds it up."""

    gate = threading.Event()

    def __init__(self, model: Any, policy: str, **options: Any) -> None:
        if options["language"] == "xx":
            raise ValueError("there is no language 'xx'")

    def push(self, samples: np.ndarray) -> Update:
        self.gate.wait(30)
        if np.abs(samples).max(initial=0) > 0.5:
            raise RuntimeError("too loud")
        word = LiveWord(f" {len(samples) / RATE:g}", 0, 1, 0.9)
        return Update([word], [LiveWord(" perhaps", 1, 2, 0.4)], behind=0.25)

    def finish(self) -> Update:
        return Update([LiveWord(" end", 1, 2, 0.9)])


Make = Callable[..., Speakers]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Speakers whose model is loaded."""
    monkeypatch.setattr(streams, "LiveTranscriber", Transcriber)
    monkeypatch.setattr(module, "_ANSWER_SECONDS", 0.05)
    Transcriber.gate.set()
    made: list[Speakers] = []

    def speakers(
        most: int = 2, seconds: float = 60, idle: float = 60, multilingual: bool = True
    ) -> Speakers:
        one = Speakers(lambda: a_model(multilingual), SpeakerLimits(most, seconds, idle))
        made.append(one)
        eventually(lambda: one.open_stream("en") is not None)
        return one

    yield speakers
    Transcriber.gate.set()
    for one in made:
        one.close()


def eventually(true: Callable[[], Any]) -> None:
    until = time.monotonic() + 20
    while not true():
        assert time.monotonic() < until
        time.sleep(0.01)


def hear_until(speaker: Speaker, true: Callable[[], bool], last: bool = False) -> None:
    eventually(lambda: true() or speaker.hear(NOTHING, RATE, last) and true())


# A speaker


def test_words_come_and_the_rest_with_the_end(make: Make) -> None:
    speaker = make().open("alice", "en")
    assert speaker.state == "loading"
    assert speaker.hear(SECOND, RATE)
    hear_until(speaker, lambda: bool(speaker.committed))
    assert (speaker.committed, speaker.tentative, speaker.state) == (" 1", " perhaps", "listening")
    assert (speaker.behind, speaker.delays) == (0.25, [(1.0, 0.25)])
    assert speaker.hear(SECOND[: RATE // 2], RATE, last=True)
    hear_until(speaker, lambda: speaker.state == "ended", last=True)
    assert (speaker.committed, speaker.tentative, speaker.reason) == (" 1 0.5 end", "", "")
    assert speaker.hear(SECOND, RATE), "what comes late is no error"
    assert (speaker.seconds, speaker.behind) == (1.5, 0)


@pytest.mark.parametrize(
    ("samples", "rate", "says"),
    [
        (SECOND, 0, "sampling rate of 0"),
        (SECOND, 10**9, "sampling rate"),
        (np.zeros((3, 2, 2), np.int16), RATE, "shape"),
        (np.zeros(10, np.int64), RATE, "int64"),
        (np.full(10, np.nan, np.float32), RATE, "NaN"),
    ],
)
def test_bad_sound_is_refused_alone(make: Make, samples: Any, rate: int, says: str) -> None:
    speaker = make().open("alice", "en")
    with pytest.raises(ValueError, match=says):
        speaker.hear(samples, rate)
    assert speaker.hear(np.zeros(48_000, np.int16), 48_000)
    assert speaker.hear(NOTHING, 48_000)
    assert (speaker.seconds, speaker.state) == (1, "listening")


def test_nobody_runs_far_ahead(make: Make) -> None:
    Transcriber.gate.clear()
    speaker = make(seconds=1000).open("alice", "en")
    minute = np.zeros(60 * RATE, np.int16)
    assert [speaker.hear(minute, RATE) for _ in range(4)] == [True, True, False, False]
    Transcriber.gate.set()
    hear_until(speaker, lambda: speaker.behind < 1)
    assert speaker.hear(minute, RATE)
    assert speaker.seconds == 180


def test_a_slow_decoding_holds_up_nobody_else(make: Make) -> None:
    """Nor does one page that asks again and again take the threads of others."""
    Transcriber.gate.clear()
    speakers = make()
    slow, other = speakers.open("alice", "en"), speakers.open("bob", "en")
    threads = [threading.Thread(target=slow.hear, args=(SECOND, RATE)) for _ in range(20)]
    for thread in threads:
        thread.start()
    began = time.monotonic()
    assert other.hear(SECOND, RATE)
    slow.end()
    for thread in threads:
        thread.join()
    assert time.monotonic() - began < 5
    assert slow.seconds < 20


def test_a_failure_ends_its_own_words(make: Make) -> None:
    speakers = make()
    bad, good = speakers.open("alice", "en"), speakers.open("bob", "en")
    bad.hear(np.full(RATE, 30_000, np.int16), RATE)
    hear_until(bad, lambda: bad.state == "ended")
    assert "too loud" in bad.reason
    good.hear(SECOND, RATE)
    hear_until(good, lambda: good.committed == " 1")


@pytest.mark.parametrize("how", ["sound", "time"])
def test_a_speaker_has_limited_time(make: Make, how: str) -> None:
    speaker = make(seconds=3 if how == "sound" else 0.5).open("alice", "en")
    speaker.hear(SECOND, RATE)
    for _ in range(2 if how == "sound" else 0):
        speaker.hear(SECOND, RATE)
    hear_until(speaker, lambda: speaker.state == "ended")
    assert "You may speak for" in speaker.reason
    assert speaker.committed.endswith(" end"), "what was said before is transcribed"


# Several


def test_room_is_for_few_and_is_given_back(make: Make) -> None:
    speakers = make(most=2)
    first, _ = speakers.open("alice", "en"), speakers.open("bob", "en")
    with pytest.raises(NoRoomError, match="No more than 2"):
        speakers.open("carol", "en")
    again = speakers.open("alice", "en")
    assert (first.state, first.reason) == ("ended", "You speak in another place now.")
    again.end()
    speakers.open("carol", "en")


def test_who_sends_nothing_makes_room(make: Make) -> None:
    speakers = make(most=1, idle=0.3)
    first = speakers.open("alice", "en")
    first.hear(SECOND, RATE)
    with pytest.raises(NoRoomError):
        speakers.open("bob", "en")
    time.sleep(0.4)
    speakers.open("bob", "en")
    assert (first.state, "Nothing came" in first.reason) == ("ended", True)


def test_a_page_that_never_stops_makes_room(make: Make) -> None:
    """Though it asks for words all the time, and takes none."""
    speakers = make(most=1, seconds=0.2, idle=0.2)
    first = speakers.open("alice", "en")
    eventually(lambda: first.hear(NOTHING, RATE) and first.is_idle())
    speakers.open("bob", "en")


# The model


def test_sound_waits_for_the_model_at_the_visitor_s(make: Make) -> None:
    make()
    loaded = threading.Event()
    speakers = Speakers(lambda: a_model() if loaded.wait(20) else None, SpeakerLimits(1, 60))
    speaker = speakers.open("alice", "en")
    assert not speaker.hear(SECOND, RATE)
    assert speaker.state == "loading"
    loaded.set()
    eventually(lambda: speaker.hear(SECOND, RATE))
    assert speaker.seconds == 1
    speakers.close()


def test_a_model_that_is_not_there_is_tried_anew(make: Make) -> None:
    make()
    answers: list[Any] = [OSError("there is no model 'small'"), KeyError("?"), a_model()]

    def load() -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    speakers = Speakers(load, SpeakerLimits(1, 60))
    speaker = speakers.open("alice", "en")
    eventually(lambda: speaker.hear(SECOND, RATE))
    assert (speaker.state, speaker.reason) == ("ended", "there is no model 'small'")
    again = speakers.open("alice", "en")
    eventually(lambda: again.hear(SECOND, RATE))
    assert "the log of the server" in again.reason
    again = speakers.open("alice", "en")
    eventually(lambda: again.hear(SECOND, RATE))
    assert again.state == "listening"
    speakers.close()


def test_a_language_that_there_is_not(make: Make) -> None:
    speaker = make().open("alice", "xx")
    assert speaker.hear(SECOND, RATE)
    assert (speaker.state, speaker.reason) == ("ended", "there is no language 'xx'")


@pytest.mark.parametrize("language", [None, "en", "de"])
def test_an_english_model_takes_english(make: Make, language: str | None) -> None:
    speaker = make(multilingual=False).open("alice", language)
    assert speaker.hear(SECOND, RATE)
    assert speaker.state == ("ended" if language == "de" else "listening")
    assert ("knows English alone" in speaker.reason) == (language == "de")


# The tab


class Request:
    """What is used of Gradio's."""

    def __init__(self, visitor: str) -> None:
        self.session_hash = f"page of {visitor}"
        self.cookies = {COOKIE: visitor}


def piece(samples: Any = SECOND, **also: Any) -> Any:
    said = {"number": 1, "rate": RATE, "first": False, "last": False, **also}
    if isinstance(samples, np.ndarray):
        samples = base64.b64encode(samples.tobytes()).decode()
    return SimpleNamespace(samples=samples, **said)


@pytest.fixture
def sessions() -> Sessions:
    uploads: Any = None  # nobody sends a recording
    return Sessions(uploads)


@pytest.fixture
def handlers(make: Make, sessions: Sessions) -> Any:
    pytest.importorskip("gradio", reason="the page needs Gradio: the extra `web`")
    from whisper_max_backend.demo.live_tab import Handlers

    return Handlers(make(most=1), sessions)


def test_a_page_speaks_clears_and_stops(handlers: Any, sessions: Any) -> None:
    alice = Request("alice")
    answer, *_ = handlers.hear("en", piece(first=True, number=7), alice)
    assert answer == {"number": 7, "taken": True, "goes_on": True}
    eventually(lambda: "perhaps" in handlers.hear("en", piece(NOTHING), alice)[2])
    _, status, words, plot = handlers.hear("en", piece(NOTHING), alice)
    assert "1 s heard, 0.2 s behind" in status
    assert ">1<" in words
    assert plot.value is not None
    assert "perhaps" not in handlers.clear(alice)[1]
    eventually(lambda: not handlers.hear("en", piece(NOTHING, last=True), alice)[0]["goes_on"])
    _, status, words, _ = handlers.hear("en", piece(NOTHING, last=True), alice)
    assert ("Done." in status, ">0 end<" in words) == (True, True)


@pytest.mark.parametrize("samples", [None, 5, "no base64!", "YWJj"], ids=str)
@pytest.mark.parametrize("rate", [RATE, 0, None, "x", 1e400], ids=str)
def test_a_page_is_told_what_was_left_out(
    handlers: Any, sessions: Any, samples: Any, rate: Any
) -> None:
    alice = Request("alice")
    answer, _, words, _ = handlers.hear("en", piece(samples, rate=rate, first=True), alice)
    assert answer["goes_on"]
    assert "left out" in words
    assert handlers.hear("en", piece(), alice)[0]["goes_on"]
    assert sessions.of(alice).speaker.seconds == 1


def test_visitors_hear_nothing_of_each_other(handlers: Any, sessions: Any) -> None:
    alice, bob = Request("alice"), Request("bob")
    handlers.hear("en", piece(first=True), alice)
    answer, status, *_ = handlers.hear("en", piece(first=True), bob)
    assert (answer["goes_on"], "No more than 1" in status) == (False, True)
    bob.session_hash = alice.session_hash
    answer, status, *shown = handlers.hear("en", piece(), bob)
    assert not answer["goes_on"]
    assert "Press Start" in status
    assert not [one for one in shown if isinstance(one, str)]
    speaker = sessions.of(alice).speaker
    sessions.close(alice)
    assert speaker.state == "ended"
    assert handlers.hear("en", piece(first=True), bob)[0]["goes_on"], "closing a page makes room"


@pytest.mark.parametrize("speaks", [False, True])
def test_a_comparison_says_that_somebody_spoke(
    make: Make, sessions: Any, monkeypatch: pytest.MonkeyPatch, speaks: bool
) -> None:
    pytest.importorskip("gradio", reason="the page needs Gradio: the extra `web`")
    from whisper_max_backend.demo import app, plots

    speakers = make()

    class Run:
        name, problem, before, stopped, sides = "speech.wav", "", 0, False, ()

        def __init__(self, workshop: Any, name: str, file: Any, *_: Any) -> None:
            file.close()

        def wait(self, timeout: float) -> bool:
            if speaks:
                speakers.open("alice", "en").hear(SECOND, RATE)
            return True

    monkeypatch.setattr(app, "Run", Run)
    monkeypatch.setattr(app, "records_of", lambda run: [])
    monkeypatch.setattr(plots, "draw", lambda run: [])
    monkeypatch.setattr(app, "_view", lambda status, *_: status)
    nothing: Any = None
    sides = {"ours": nothing, "theirs": nothing}
    handlers: Any = app._Handlers(nothing, sessions, sides, speakers)
    bob = Request("bob")
    (status,) = handlers.compare(str(SAMPLE), "tiny.en", list(sides), "en", 5, False, [], bob)
    assert "Done: speech.wav" in status
    assert ("Somebody spoke" in status) == speaks


def test_words_are_no_markup(make: Make) -> None:
    speaker = make().open("alice", None)
    speaker.committed = speaker.tentative = speaker.problem = "<script>1</script>"
    page = rendering.live(speaker)
    assert "<script>" not in page
    assert page.count("&lt;script&gt;") == 3
