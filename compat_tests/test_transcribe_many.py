"""`transcribe_many` against one recording after another."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from typing import Any

import faster_whisper
import numpy as np
import pytest

from compat_tests.support.models import model_directory, our_model, reference_model, subject
from compat_tests.support.recordings import audio_file, load

NAMES = ("jfk", "command", "silence", "austen", "music")
SAMPLED: dict[str, Any] = {"language": "en", "temperature": 1.0, "beam_size": 1, "best_of": 1}


def pieces(segments: Any, info: Any) -> list[Any]:
    """What there is to compare of a transcription."""
    kept = [
        (
            segment.id,
            segment.seek,
            segment.start,
            segment.end,
            segment.tokens,
            segment.text,
            [(word.word, word.start, word.end) for word in segment.words or ()],
        )
        for segment in segments
    ]
    return [info.language, info.duration, info.duration_after_vad, *kept]


def texts(model: Any, keys: list[str], in_flight: int) -> dict[str, str]:
    audio = load("noisy")
    found = {}
    for index, segments, _ in model.transcribe_many(
        [audio] * len(keys), keys=keys, in_flight=in_flight, **SAMPLED
    ):
        found[keys[index]] = "".join(segment.text for segment in segments)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"beam_size": 5},
        {"beam_size": 1, "word_timestamps": True, "vad_filter": True},
        {"condition_on_previous_text": False, "without_timestamps": True},
    ],
    ids=["beams", "words", "plain"],
)
def test_the_words_are_those_of_each_recording_alone(options: dict[str, Any]) -> None:
    options = {"language": "en", "temperature": 0.0, **options}
    audios = [load(name) for name in NAMES]
    expected = [pieces(*reference_model("tiny.en").transcribe(a, **options)) for a in audios]
    found: dict[int, list[Any]] = {}
    for index, segments, info in our_model("tiny.en").transcribe_many(
        audios, in_flight=4, **options
    ):
        found[index] = pieces(segments, info)
    assert [found[index] for index in range(len(NAMES))] == expected


@pytest.mark.slow
def test_several_workers() -> None:
    """Short recordings overtake long ones, and what each gives stays its own."""
    model = subject().WhisperModel(
        str(model_directory("tiny.en")),
        device="cpu",
        compute_type="float32",
        cpu_threads=1,
        num_workers=2,
    )
    audios = [load("long_pauses"), *[load("command")] * 3]
    options = {"language": "en", "temperature": 0.0}
    expected = [pieces(*model.transcribe(audio, **options)) for audio in audios]
    results = list(model.transcribe_many(audios, **options))
    assert sorted(index for index, _, _ in results) == list(range(len(audios)))
    assert results[0][0] != 0
    for index, segments, info in results:
        assert pieces(segments, info) == expected[index]


@pytest.mark.slow
def test_a_model_of_faster_whispers() -> None:
    model = reference_model("tiny.en")
    assert isinstance(model, faster_whisper.WhisperModel)
    options = {"language": "en", "temperature": 0.0}
    path = str(audio_file("jfk.flac"))
    expected = pieces(*model.transcribe(path, **options))
    for _, segments, info in subject().transcribe_many(model, [path, path], **options):
        assert pieces(segments, info) == expected


@pytest.mark.slow
def test_samples_depend_on_the_key_alone() -> None:
    model = our_model("tiny.en")
    one_by_one = texts(model, ["a", "b", "c"], in_flight=1)
    assert len(set(one_by_one.values())) > 1
    assert texts(model, ["c", "x", "a", "y", "b"], in_flight=4).items() >= one_by_one.items()


def test_no_recordings() -> None:
    assert list(our_model("tiny.en").transcribe_many([])) == []


def test_recordings_are_taken_when_there_is_room_for_them() -> None:
    taken = 0

    def recordings() -> Iterator[np.ndarray]:
        nonlocal taken
        for _ in range(5):
            taken += 1
            yield np.zeros(16_000, np.float32)

    results = our_model("tiny.en").transcribe_many(recordings(), in_flight=2, language="en")
    assert taken == 0
    for count, _ in enumerate(results, start=1):
        assert taken <= count + 1
    assert taken == 5


def test_an_endless_source_can_be_left() -> None:
    model = our_model("tiny.en")
    silence = itertools.repeat(np.zeros(16_000, np.float32))
    results = model.transcribe_many(silence, in_flight=3, language="en")
    _, _, info = next(results)
    assert info.duration == 1
    results.close()
    assert model.model.num_active_batches == 0
    assert not [t for t in threading.enumerate() if t.name.startswith("transcribe_many")]


def test_closing_stops_within_a_segment() -> None:
    """A long recording is not transcribed to its end."""

    class Slow:
        segments = 0

        def transcribe(self, audio: float) -> tuple[Iterator[float], None]:
            def go_on() -> Iterator[float]:
                while audio:
                    time.sleep(0.01)
                    self.segments += 1
                    yield audio

            return go_on(), None

    slow = Slow()
    results = subject().transcribe_many(slow, [0.0, 1.0], in_flight=2)
    assert next(results)[1] == []
    results.close()
    counted = slow.segments
    time.sleep(0.1)
    assert slow.segments == counted


def test_an_error_names_the_recording() -> None:
    audios = [np.zeros(16_000, np.float32), "no-such-file.wav"]
    with pytest.raises(FileNotFoundError, match=r"no-such-file\.wav") as raised:
        list(our_model("tiny.en").transcribe_many(audios, language="en"))
    assert "index 1" in "".join(getattr(raised.value, "__notes__", ["index 1"]))


def test_others_go_on_after_an_error() -> None:
    failed: dict[int, Exception] = {}
    silence = np.zeros(16_000, np.float32)
    results = our_model("tiny.en").transcribe_many(
        [silence, "no-such-file.wav", silence, np.full(100, np.nan, np.float32)],
        language="en",
        on_error=failed.__setitem__,
    )
    assert sorted(index for index, _, _ in results) == [0, 2]
    assert failed.keys() == {1, 3}
    assert isinstance(failed[1], FileNotFoundError)
    assert isinstance(failed[3], ValueError)


def test_an_error_of_the_source_is_raised() -> None:
    def recordings() -> Iterator[np.ndarray]:
        yield np.zeros(16_000, np.float32)
        raise KeyError("the source")

    with pytest.raises(KeyError, match="the source"):
        list(our_model("tiny.en").transcribe_many(recordings(), language="en"))


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"audios": "speech.wav"}, TypeError, "several recordings.*speech.wav"),
        ({"audios": [], "beams": 5}, TypeError, "beams"),
        ({"audios": [], "in_flight": 0}, ValueError, "in_flight.*0"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], error: type[Exception], words: str) -> None:
    """They are refused before anything is transcribed."""
    with pytest.raises(error, match=words):
        our_model("tiny.en").transcribe_many(**arguments)


@pytest.mark.parametrize("count", [1, 3])
def test_as_many_keys_as_recordings(count: int) -> None:
    silence = np.zeros(16_000, np.float32)
    with pytest.raises(ValueError, match="more (keys|audios)"):
        list(our_model("tiny.en").transcribe_many([silence] * 2, keys=range(count), language="en"))
