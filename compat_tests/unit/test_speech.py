"""Where a recording has speech: the reference's model and rules, with less memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from faster_whisper import vad
from faster_whisper.vad import VadOptions
from hypothesis import given
from hypothesis import strategies as st

from compat_tests.support.randomness import rng
from compat_tests.support.recordings import load
from whisper_max_backend import batched, speech

FRAME = speech.FRAME

OPTIONS = st.builds(
    VadOptions,
    threshold=st.sampled_from([0.3, 0.5, 0.7]),
    neg_threshold=st.sampled_from([None, 0.1, 0.5]),
    min_speech_duration_ms=st.sampled_from([0, 100, 400]),
    max_speech_duration_s=st.sampled_from([1.0, 2.0, 5.0, float("inf")]),
    min_silence_duration_ms=st.sampled_from([0, 64, 160, 500, 2000]),
    speech_pad_ms=st.sampled_from([0, 30, 100, 400]),
)
RUNS = st.lists(
    st.tuples(st.sampled_from([0.05, 0.2, 0.36, 0.5, 0.6, 0.95]), st.integers(1, 60)), max_size=20
)
"""How likely speech is, and in how many frames on end."""


@pytest.mark.parametrize("rest", [0, 1, 300, 448, 449, 500, 511])
def test_probabilities_are_the_reference_models(rest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the last frame lacks, and in pieces that are shorter than the recording."""
    monkeypatch.setattr(speech, "_BLOCK", 70 * FRAME)
    samples = load("austen")[: 300 * FRAME + rest]
    padded = np.pad(samples, (0, FRAME - len(samples) % FRAME))
    expected = vad.get_vad_model()(padded).ravel()
    np.testing.assert_array_equal(speech.speech_probabilities(samples), expected)


@pytest.mark.parametrize(("threads", "part"), [(1, 100_000), (2, 500_000), (7, 12_345)])
def test_threads_and_parts_change_nothing(threads: int, part: int) -> None:
    """Of a recording that comes in parts."""
    samples = load("two_minutes")
    expected = speech.SpeechModel().probabilities(samples[: len(samples) // FRAME * FRAME])
    with speech.SpeechFinder(threads) as finder:
        for start in range(0, len(samples), part):
            finder.push(samples[start : start + part])
            assert len(finder._encoded) <= 2 * threads  # and no more of it in memory
        found = finder.probabilities()
    np.testing.assert_array_equal(found[:-1], expected)


@pytest.mark.parametrize("name", ["two_minutes", "long_pauses", "music", "silence"])
@pytest.mark.parametrize("options", [VadOptions(), VadOptions(max_speech_duration_s=4)])
def test_timestamps_of_recordings(name: str, options: VadOptions) -> None:
    samples = load(name)
    expected = vad.get_speech_timestamps(samples.copy(), options)
    heard = speech.speech_probabilities(samples)
    assert speech.speech_timestamps(heard, len(samples), options) == expected


@given(RUNS, st.integers(1, FRAME), OPTIONS)
def test_timestamps_of_any_probabilities(
    runs: list[tuple[float, int]], last: int, options: VadOptions
) -> None:
    """Both sides are given the same probabilities."""
    probabilities = np.repeat(
        np.array([value for value, _ in runs], np.float32), [count for _, count in runs]
    )
    probabilities = np.append(probabilities, np.float32(0.1))
    samples = np.zeros((len(probabilities) - 1) * FRAME + last - 1, np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vad, "get_vad_model", lambda: lambda _audio: probabilities[:, None])
        expected = vad.get_speech_timestamps(samples, options)
    assert speech.speech_timestamps(probabilities, len(samples), options) == expected


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 60)), max_size=20), st.integers(1, 60))
def test_chunks_are_the_references(gaps_and_lengths: list[tuple[int, int]], most: int) -> None:
    """Also of speech that is longer than a chunk may be."""
    speeches, end = [], 0
    for gap, length in gaps_and_lengths:
        speeches.append({"start": end + gap, "end": end + gap + length})
        end += gap + length
    samples = rng().random(end).astype(np.float32)
    rate = 1
    expected, expected_metadata = vad.collect_chunks(
        samples, speeches, sampling_rate=rate, max_duration=most
    )
    chunks = batched._chunks(speeches, most * rate)
    found = [samples_of(samples, chunk) for chunk in chunks]
    assert batched._chunks_metadata(chunks, rate) == expected_metadata
    assert [list(one) for one in found] == [list(one) for one in expected]


def samples_of(samples: np.ndarray, chunk: list[Any]) -> np.ndarray:
    parts = [samples[one["start"] : one["end"]] for one in chunk]
    return np.concatenate([np.empty(0, np.float32), *parts])
