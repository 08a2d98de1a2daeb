"""Guards on the real models: speech stays as the reference has it, and what nobody said goes."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import faster_whisper
import numpy as np
import pytest
from click.testing import CliRunner

from compat_tests.support.models import (
    ENGLISH,
    model_directory,
    our_class,
    our_model,
    reference_model,
    reference_transcription,
    texts,
)
from compat_tests.support.recordings import SAMPLING_RATE, load, write_wav
from whisper_max_backend.cli import main
from whisper_max_backend.guards.words import share, words
from whisper_max_backend.system.cancellation import Cancelled, CancelToken

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    """A window that tiny.en takes for "a little bit of a little bit of", without end."""
    return np.random.default_rng(1).normal(0, 0.05, 30 * SAMPLING_RATE).astype(np.float32)


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("recording", ["jfk", "austen"])
def test_speech_has_the_tokens_of_the_reference(recording: str, batched: bool) -> None:
    expected = reference_transcription("tiny.en", recording, batched=batched, **ENGLISH)
    asked = our_class("tiny.en", batched=batched)
    for guards in (False, True):
        segments, info = asked.transcribe(load(recording).copy(), guards=guards, **ENGLISH)
        assert [(each.id, each.start, each.end, each.text, each.tokens) for each in segments] == [
            (each.id, each.start, each.end, each.text, each.tokens) for each in expected.segments
        ]
        assert isinstance(info, faster_whisper.transcribe.TranscriptionInfo)
        if guards is True:
            assert info.refused == info.recovered == info.uncovered == []
        else:
            assert type(info) is faster_whisper.transcribe.TranscriptionInfo


@pytest.mark.parametrize(("name", "word_timestamps"), [("silence", False), ("noise", True)])
def test_text_where_nobody_speaks_is_refused(
    name: str, word_timestamps: bool, noise: np.ndarray
) -> None:
    audio = noise if name == "noise" else load(name)
    options = {**ENGLISH, "word_timestamps": word_timestamps, "no_speech_threshold": None}
    invented = texts(reference_model("tiny.en").transcribe(audio.copy(), **options)[0])
    assert any(text.strip(" .") for text in invented), "the reference invents text here"
    segments, info = our_model("tiny.en").transcribe(audio, guards=True, **options)
    assert list(segments) == []
    assert texts(info.refused)
    for segment in info.refused:
        assert segment.guard in ("no-speech", "times")
        assert segment.reason
    assert info.uncovered == []


def test_single_guards(noise: np.ndarray) -> None:
    options = {**ENGLISH, "no_speech_threshold": None}
    model = our_model("tiny.en")
    every = texts(model.transcribe(noise, **options)[0])
    assert texts(model.transcribe(noise, guards=["coverage"], **options)[0]) == every
    assert texts(model.transcribe(noise, guards="no-speech", **options)[0]) == []


def test_a_loop_is_refused_whole(noise: np.ndarray) -> None:
    segments, info = our_model("tiny.en").transcribe(noise, guards=["loops"], **ENGLISH)
    assert list(segments) == []
    (loop,) = info.refused
    assert loop.text.count("a little bit of") > 20
    assert loop.guard == "loops"
    assert "tokens comes again and again" in loop.reason


def test_an_unknown_guard(model: Any) -> None:
    with pytest.raises(ValueError, match="unknown guards 'silence': choose of no-speech"):
        model.transcribe(load("jfk"), guards=["silence"])


@pytest.mark.parametrize("word_timestamps", [False, True])
def test_speech_that_a_decoding_loses_is_found_in_its_place(
    model: Any, word_timestamps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first decoding has no text for what is in the middle."""
    audio = np.concatenate(
        [load("jfk"), np.zeros(3 * SAMPLING_RATE, np.float32), load("austen"), load("jfk")]
    )
    options = {**ENGLISH, "word_timestamps": word_timestamps}
    start, end = 14.0, 14.0 + len(load("austen")) / SAMPLING_RATE  # of the middle
    whole = list(model.transcribe(audio, **options)[0])
    cls = type(model)
    transcribe = cls._transcribe

    def losing(self: Any, samples: np.ndarray, *args: Any, **kwargs: Any) -> Any:
        segments, info = transcribe(self, samples, *args, **kwargs)

        def left(found: Any) -> Generator[Any]:
            yield from (each for each in found if not start - 1 < each.start < end - 1)

        return (left(segments) if len(samples) == len(audio) else segments), info

    monkeypatch.setattr(cls, "_transcribe", losing)
    segments, info = model.transcribe(audio, guards=True, **options)
    found = list(segments)
    assert len(info.recovered) > 0
    assert [each.start for each in found] == sorted(each.start for each in found)
    assert [each.id for each in found] == list(range(1, len(found) + 1))
    said = words("".join(texts(each for each in whole if start - 1 < each.start < end - 1)))
    assert share(said, words("".join(texts(info.recovered)))) > 0.6
    for each in info.recovered:
        assert start - 1 <= each.start < each.end <= len(audio) / SAMPLING_RATE
        assert bool(each.words) == word_timestamps


def test_nothing_is_looked_for_outside_of_clips() -> None:
    audio = np.concatenate([load("jfk"), load("austen")])
    options = {**ENGLISH, "clip_timestamps": "0,5"}
    model = our_model("tiny.en")
    segments, info = model.transcribe(audio, guards=True, **options)
    assert texts(segments) == texts(model.transcribe(audio, **options)[0])
    assert info.recovered == []


def test_with_the_vad_filter(model: Any, noise: np.ndarray) -> None:
    audio = np.concatenate([noise[: 5 * SAMPLING_RATE], load("jfk"), noise[: 5 * SAMPLING_RATE]])
    options = {**ENGLISH, "vad_filter": True}
    expected = list(model.transcribe(audio, **options)[0])
    segments, info = model.transcribe(audio, guards=True, **options)
    assert list(segments) == expected
    assert info.refused == info.recovered == []


def test_progress_and_cancelling(model: Any, noise: np.ndarray) -> None:
    audio = np.concatenate([load("jfk"), noise[: 5 * SAMPLING_RATE], load("austen")])
    told: list[float] = []
    segments, info = model.transcribe(audio, guards=True, progress=told.append, **ENGLISH)
    list(segments)
    assert told == sorted(set(told))
    assert told[-1] == info.duration
    token = CancelToken()
    segments, _ = model.transcribe(audio, guards=True, cancel=token, **ENGLISH)
    next(segments)
    token.cancel()
    with pytest.raises(Cancelled):
        list(segments)
    assert list(segments) == []
    token = CancelToken()
    segments, _ = model.transcribe(audio, guards=True, cancel=token, **ENGLISH)
    next(segments)
    segments.close()
    assert texts(model.transcribe(load("jfk"), **ENGLISH)[0])


def test_many_recordings(noise: np.ndarray) -> None:
    options = {**ENGLISH, "no_speech_threshold": None, "guards": True}
    found = list(our_model("tiny.en").transcribe_many([noise, load("jfk")], **options))
    heard = {index: (segments, info) for index, segments, info in found}
    assert heard[0][0] == []
    assert heard[0][1].refused
    assert "fellow Americans" in "".join(texts(heard[1][0]))


@pytest.fixture
def silent_file(tmp_path: Any, noise: np.ndarray) -> str:
    path = tmp_path / "noise.wav"
    write_wav(path, noise)
    return str(path)


def test_the_command_tells_what_is_left_out(silent_file: str, tmp_path: Any) -> None:
    arguments = ["transcribe", silent_file, "--model", str(model_directory("tiny.en")), "--guards"]
    arguments += ["--device", "cpu", "--temperature", "0", "--no-speech-threshold", "1"]
    result = CliRunner().invoke(main, [*arguments, "-f", "json", "-o", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "-->" not in result.stdout
    assert "is left out: " in result.stderr
    content = (tmp_path / "noise.json").read_text()
    assert '"segments": []' in content
    assert '"guard": ' in content


def test_a_backend_without_guards(silent_file: str) -> None:
    arguments = ["transcribe", silent_file, "--model", str(model_directory("tiny.en")), "--guards"]
    result = CliRunner().invoke(main, [*arguments, "--backend", "ctranslate2", "--device", "cpu"])
    assert result.exit_code == 1
    assert "has no guards: leave out --guards" in result.output
