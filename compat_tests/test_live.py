"""Live speech on the real models, with a clock that is simulated."""

from __future__ import annotations

import difflib
import re
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from compat_tests.support.live import committed, pieces, updates
from compat_tests.support.models import model_directory, our_model, reference_model
from compat_tests.support.recordings import SAMPLING_RATE, load
from whisper_max_backend.cli import live_audio, main
from whisper_max_backend.live import LiveTranscriber, LiveWord, Update
from whisper_max_backend.live.speech import SpeechDetector
from whisper_max_backend.live.transcriber import CONTEXT_TOKENS
from whisper_max_backend.live.window import WINDOW_SECONDS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

POLICIES = ("alignatt", "local-agreement")


def plain(text: str) -> list[str]:
    return re.sub(r"[^\w' ]", "", text.lower()).split()


def alike(text: str, other: str) -> float:
    """The share of words that two texts have in common."""
    return difflib.SequenceMatcher(None, plain(text), plain(other), autojunk=False).ratio()


def offline(name: str, model: str = "base", language: str = "en") -> str:
    segments, _ = reference_model(model).transcribe(load(name), language=language, temperature=0)
    return "".join(segment.text for segment in segments)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", ["jfk", "austen", "beckett"])
def test_the_text_is_that_of_the_whole_recording(name: str, policy: Any) -> None:
    live = LiveTranscriber(our_model("base"), policy, language="en")
    found = updates(live, load(name))
    text = "".join(word.text for word in committed(found))
    assert alike(text, offline(name)) > 0.85, text
    assert found[-1].tentative == []
    assert found[-1].behind == 0


def test_words_come_early_and_in_order() -> None:
    live = LiveTranscriber(our_model("base"), language="en", min_chunk=0.5)
    delays = []
    latest = 0.0
    for count, update in enumerate(updates(live, load("austen"), 0.5), start=1):
        for word in update.committed:
            assert latest <= word.start <= word.end
            assert 0 < word.confidence <= 1
            latest = word.end
            delays.append(0.5 * count - word.end)
        assert update.committed_text == "".join(word.text for word in update.committed)
    assert len(delays) > 50
    assert np.mean(delays) < 3


def test_frames_are_those_of_the_reference() -> None:
    """A word attends to where the reference's alignment finds it."""
    live = LiveTranscriber(our_model("base"), language="en")
    words = committed(updates(live, load("jfk")))
    segments, _ = reference_model("base").transcribe(
        load("jfk"), language="en", temperature=0, word_timestamps=True
    )
    expected: dict[str, tuple[float, float]] = {}
    for segment in segments:
        for word in segment.words or ():
            expected.setdefault(plain(word.word)[0], (word.start, word.end))
    near = [
        word.end > expected[text][0] - 0.3 and word.start < expected[text][1] + 0.3
        for word in words
        for text in plain(word.text)
        if text in expected and [plain(w.text) for w in words].count([text]) == 1
    ]
    assert len(near) >= 5
    assert np.mean(near) > 0.8


@pytest.mark.parametrize("policy", POLICIES)
def test_a_burst(policy: Any) -> None:
    """More audio at once than a window has: none is lost."""
    samples = np.concatenate([load("austen"), load("jfk"), load("austen")])
    assert len(samples) > WINDOW_SECONDS * SAMPLING_RATE
    live = LiveTranscriber(our_model("base"), policy, language="en")
    text = "".join(word.text for word in [*live.push(samples).committed, *live.finish().committed])
    assert alike(text, offline("austen") + offline("jfk") + offline("austen")) > 0.8, text


def test_minutes_need_no_more_memory_than_a_window() -> None:
    live = LiveTranscriber(our_model("tiny.en"), language="en")
    for piece in pieces(np.concatenate([load("austen"), load("jfk"), load("silence")] * 4), 1.0):
        live.push(piece)
        assert len(live._audio) <= WINDOW_SECONDS * SAMPLING_RATE
        assert len(live._context) <= CONTEXT_TOKENS
        assert len(live._words) < 200
        assert sum(map(len, live._pending)) < SAMPLING_RATE


def test_silence() -> None:
    live = LiveTranscriber(our_model("tiny.en"), language="en")
    noise = np.random.default_rng(0).normal(0, 1e-4, 60 * SAMPLING_RATE).astype(np.float32)
    for update in updates(live, noise):
        assert (update.committed, update.tentative, update.behind) == ([], [], 0)
    assert live._audio.size < SAMPLING_RATE
    assert live.push(load("command")).committed_text + live.finish().committed_text != ""


@pytest.mark.parametrize("policy", POLICIES)
def test_text_that_nobody_said_is_left_out(
    policy: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """More letters than the speech that is heard has room for."""
    heard = SpeechDetector.push
    monkeypatch.setattr(SpeechDetector, "push", lambda self, samples: heard(self, samples) / 8)
    live = LiveTranscriber(our_model("tiny.en"), policy, language="en")
    with caplog.at_level("INFO", "whisper_max_backend"):
        words = committed(updates(live, load("jfk")))
    assert len("".join(word.text for word in words)) < 0.5 * len(offline("jfk"))
    assert "Left out at" in caplog.text


@pytest.mark.parametrize("rate", [8_000, 48_000])
def test_other_rates(rate: int) -> None:
    """Stereo in 16 bits, as a telephone or a sound card has it."""
    from av import AudioFrame, AudioResampler

    frame = AudioFrame.from_ndarray(load("jfk")[None], "flt", "mono")
    frame.sample_rate = SAMPLING_RATE
    resampler = AudioResampler("s16p", "stereo", rate)
    parts = [part.to_ndarray() for part in resampler.resample(frame) + resampler.resample(None)]
    stereo = np.concatenate(parts, axis=1)
    live = LiveTranscriber(our_model("base"), language="en")
    words: list[LiveWord] = []
    for start in range(0, stereo.shape[1], rate // 2):
        words += live.push(stereo[:, start : start + rate // 2], rate).committed
    words += live.finish().committed
    assert alike("".join(word.text for word in words), offline("jfk")) > 0.85


def test_a_bad_piece_is_refused_and_the_stream_goes_on() -> None:
    live = LiveTranscriber(our_model("base"), language="en")
    words: list[LiveWord] = []
    for piece in pieces(load("jfk"), 1.0):
        words += live.push(piece).committed
        with pytest.raises(ValueError, match="not numbers"):
            live.push(np.full(100, np.nan, np.float32))
    words += live.finish().committed
    assert alike("".join(word.text for word in words), offline("jfk")) > 0.85


def test_the_language_is_detected() -> None:
    live = LiveTranscriber(our_model("base"))
    text = "".join(word.text for word in committed(updates(live, load("french"))))
    assert alike(text, offline("french", language="fr")) > 0.7, text


def test_streams_side_by_side() -> None:
    """They share a model, and each has the words that it has alone."""
    names = ("jfk", "austen", "beckett", "command")

    def words(name: str) -> list[LiveWord]:
        return committed(updates(LiveTranscriber(our_model("tiny.en"), language="en"), load(name)))

    alone = [words(name) for name in names]
    found: dict[str, list[LiveWord]] = {}
    threads = [
        threading.Thread(target=lambda name=name: found.update({name: words(name)}))
        for name in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[name] for name in names] == alone


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"policy": "whisper"}, "unknown policy 'whisper'"),
        ({"language": "xx"}, "xx"),
        ({"language": "en", "task": "sing"}, "sing"),
        ({"min_chunk": 0}, "min_chunk"),
        ({"hold_back": -1}, "hold_back"),
    ],
)
def test_wrong_arguments(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        LiveTranscriber(our_model("base"), **options)


def test_nothing_was_said() -> None:
    assert LiveTranscriber(our_model("base")).finish() == Update()


def test_the_command_on_a_file() -> None:
    result = CliRunner().invoke(main, ["live", "sample", "--fast", "--chunk", "0.5"])
    assert result.exit_code == 0, result.output
    assert alike(result.stdout, offline("jfk", "tiny.en")) > 0.8, result.output


def test_the_command_on_standard_input() -> None:
    content = (load("jfk") * 32767).astype(np.int16).tobytes()
    result = CliRunner().invoke(main, ["live", "-", "--language", "en"], input=content)
    assert result.exit_code == 0, result.output
    assert alike(result.stdout, offline("jfk", "tiny.en")) > 0.8, result.output


def test_the_command_at_a_microphone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C ends it, and what was said before is written."""

    def microphone() -> Iterator[tuple[np.ndarray, int]]:
        for piece in pieces(load("jfk"), 0.5):
            yield piece, SAMPLING_RATE
        raise KeyboardInterrupt

    monkeypatch.setattr(live_audio, "microphone", microphone)
    result = CliRunner().invoke(main, ["live", "mic", "--language", "en"])
    assert result.exit_code == 0, result.output
    assert alike(result.stdout, offline("jfk", "tiny.en")) > 0.8, result.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["no-such-file.wav"], "no-such-file.wav"),
        (["sample", "--model", "no/such/model", "--local-files-only"], "no/such/model"),
        (["sample", "--language", "xx", "--model", str(model_directory("base"))], "xx"),
    ],
)
def test_the_command_refuses(arguments: list[str], words: str) -> None:
    result = CliRunner().invoke(main, ["live", *arguments])
    assert result.exit_code == 1, result.output
    assert words in result.stderr
