"""Requests of several threads on one device: each is answered as if it were alone."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compat_tests.support.capturing import MODELS, CapturingGraph
from compat_tests.support.miniature import ARCHITECTURES, make_model
from compat_tests.support.numpy_runtime import random_features
from whisper_max_backend.engine.api.alignment import AlignmentCall
from whisper_max_backend.engine.api.generation import GenerationCall
from whisper_max_backend.engine.checkpoint.load import Checkpoint, load_checkpoint
from whisper_max_backend.engine.replica import Replica
from whisper_max_backend.engine.search.options import SearchOptions
from whisper_max_backend.engine.serving.continuous_batching import SharedModel
from whisper_max_backend.engine.state.step_batch import Prompt, Step

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # a miniature may have to be compiled

ARCHITECTURE = ARCHITECTURES["one-head"]
CALLERS = 8

PLAIN = SearchOptions(max_length=60, return_scores=True, return_no_speech_prob=True)
OPTIONS: dict[str, dict[str, Any]] = {
    "beam 5": {},
    "beam 2": {"beam_size": 2},
    "greedy": {"beam_size": 1},
    "greedy, logits": {"beam_size": 1, "return_logits_vocab": True, "max_length": 20},
    "sampled": {"beam_size": 1, "sampling_topk": 0, "sampling_temperature": 0.8, "seed": 7},
    "sampled, another seed": {"beam_size": 1, "sampling_topk": 0, "seed": 8},
    "sampled beams": {"beam_size": 3, "sampling_topk": 0, "sampling_temperature": 0.6, "seed": 5},
    "sampled among few": {"beam_size": 1, "sampling_topk": 5, "num_hypotheses": 3, "seed": 9},
    "five samples": {"beam_size": 1, "sampling_topk": 0, "num_hypotheses": 5, "seed": 3},
    "penalty": {"repetition_penalty": 1.2},
    "n-grams": {"no_repeat_ngram_size": 2, "patience": 2},
    "nothing suppressed": {"suppress_tokens": [], "suppress_blank": False},
    "much suppressed": {"suppress_tokens": [-1, *range(30, 90)]},
    "no speech probability left out": {"return_no_speech_prob": False},
    "short": {"max_length": 8},
    "long": {"max_length": 200, "suppress_tokens": [-1, 256 + 1]},
}


@dataclasses.dataclass(frozen=True)
class Request:
    """What one caller asks."""

    options: SearchOptions
    prompts: list[list[int]]
    features: np.ndarray

    def answer(self, replica: Replica) -> list[tuple[Any, ...]]:
        """Tokens, scores, probability and logits of every item."""
        call = GenerationCall(self.features, self.prompts, self.options)
        return [
            (
                result.sequences_ids,
                result.scores,
                result.no_speech_prob,
                [np.array(step) for steps in result.logits for step in steps],
            )
            for result in replica.generate(call)
        ]


@dataclasses.dataclass(frozen=True)
class Pair:
    """The same model for one request at a time, and for several."""

    alone: Replica
    shared: Replica
    model: SharedModel
    checkpoint: Checkpoint
    exact: bool  # whether a row's numbers do not depend on the other rows

    def request(self, number: int, batch: int = 1, frames: int = 200, **options: Any) -> Request:
        """With audio of its own; odd numbers are without timestamps."""
        v = self.checkpoint.vocabulary
        prompt = [v.sot, v.to_id("<|en|>"), v.to_id("<|transcribe|>")]
        prompt += [v.no_timestamps] if number % 2 else []
        features = random_features((batch, ARCHITECTURE.n_mels, frames), number)
        return Request(dataclasses.replace(PLAIN, **options), [prompt] * batch, features)

    def same(self, expected: Sequence[tuple[Any, ...]], found: Sequence[tuple[Any, ...]]) -> None:
        """Tokens are equal; numbers as well, or to what summing in another order changes."""
        assert len(found) == len(expected)
        for (ids, scores, silence, logits), (ids_, scores_, silence_, logits_) in zip(
            expected, found, strict=True
        ):
            assert ids_ == ids
            assert len(logits_) == len(logits)
            if self.exact:
                assert (scores_, silence_) == (scores, silence)
            assert scores_ == pytest.approx(scores, rel=1e-5)
            assert silence_ == pytest.approx(silence, rel=1e-4)
            for one, other in zip(logits, logits_, strict=True):
                np.testing.assert_allclose(other, one, rtol=1e-4, atol=0 if self.exact else 1e-4)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    path: Path = make_model(tmp_path_factory.mktemp("one-head"), ARCHITECTURE)
    return load_checkpoint(str(path))


@pytest.fixture(scope="module", params=list(MODELS))
def pair(request: pytest.FixtureRequest, checkpoint: Checkpoint) -> Pair:
    make = MODELS[request.param]
    model = SharedModel(make(checkpoint))
    # These texts are short: were they made in a single call, nothing would be left to share.
    model.decoder._decoder.steps_ahead = min(8, model.decoder.steps_ahead)
    vocabulary, config = checkpoint.vocabulary, checkpoint.config
    return Pair(
        Replica(make(checkpoint), vocabulary, config),
        Replica(model, vocabulary, config),
        model,
        checkpoint,
        # Up to FEW_ROWS rows, a GPU's graphs add a window's frames up in several parts.
        exact=not request.param.startswith("gpu"),
    )


@pytest.fixture
def executed(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> list[list[Step]]:
    """Steps that were executed together."""
    runs: list[list[Step]] = []
    decoder = pair.model.decoder._decoder
    execute = decoder.step_together

    def watched(steps: Sequence[Step]) -> Any:
        runs.append(list(steps))
        return execute(steps)

    monkeypatch.setattr(decoder, "step_together", watched)
    return runs


@pytest.fixture(autouse=True)
def nothing_is_left(pair: Pair) -> Iterator[None]:
    """After each test, nobody has windows or slots, and nobody is waited for."""
    yield
    decoder = pair.model.decoder
    allocator: Any = decoder._decoder.allocator
    assert decoder._joined == set()
    assert (decoder._step_batcher._joined, decoder._step_batcher._waiting) == (0, [])
    assert all(buffers.empty for buffers in allocator._by_frames.values())


def at_once(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """What the calls return, all begun at the same time in threads of their own."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], Any]) -> Any:
        barrier.wait(60)
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return [one.result(600) for one in [pool.submit(run, call) for call in calls]]


def test_equal_requests(pair: Pair, executed: list[list[Step]]) -> None:
    """Callers with one kind of request: their steps are shared, their answers their own."""
    requests = [pair.request(i) for i in range(CALLERS)]
    expected = [request.answer(pair.alone) for request in requests]
    found = at_once([partial(request.answer, pair.shared) for request in requests])
    for one, other in zip(expected, found, strict=True):
        pair.same(one, other)
    assert len({str(answer[0][0]) for answer in expected}) > CALLERS / 2
    decoder: Any = pair.model.decoder._decoder
    if isinstance(decoder._graphs["step"], CapturingGraph):
        assert decoder.captured_graphs.wanted
        assert decoder._graphs["step"].replays > len(executed) / 4
    steps = sum(map(len, executed))
    assert max(map(len, executed)) >= CALLERS / 2  # a CPU has two kinds, for what is suppressed
    # Where steps are made ahead there are few executions, so those of one request at its end count.
    assert len(executed) < steps * (0.5 if decoder.steps_ahead == 1 else 0.8)


def test_prompts_are_appended_together(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts of different lengths gather while the first is executed; no text changes."""
    v = pair.checkpoint.vocabulary
    requests = [
        dataclasses.replace(
            request, prompts=[[v.to_id("<|startofprev|>"), *range(40, 45 + i), *prompt]]
        )
        for i, request in enumerate(pair.request(2 * i) for i in range(CALLERS))
        for prompt in request.prompts
    ]
    expected = [request.answer(pair.alone) for request in requests]
    decoder = pair.model.decoder
    prefill = decoder._decoder.prefill_together
    together: list[int] = []

    def held(prompts: Sequence[Prompt]) -> None:
        deadline = time.monotonic() + 60
        while not together and len(decoder._prompt_batcher._waiting) < CALLERS - 1:
            assert time.monotonic() < deadline
            decoder._turn.wait(0.001)  # the others need the device, to come here
        together.append(len(prompts))
        prefill(prompts)

    monkeypatch.setattr(decoder._decoder, "prefill_together", held)
    found = at_once([partial(request.answer, pair.shared) for request in requests])
    for one, other in zip(expected, found, strict=True):
        pair.same(one, other)
    assert together == ([1] * CALLERS if pair.exact else [1, CALLERS - 1])


def test_positions_differ(
    pair: Pair, executed: list[list[Step]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests that come later join at the next step; short ones leave, the long one goes on."""
    endless = [-1, pair.checkpoint.vocabulary.eot]
    lengths = (200, 22, 24, 30)
    requests = [
        pair.request(2 * i, max_length=length, suppress_tokens=endless)
        for i, length in enumerate(lengths)
    ]
    expected = [request.answer(pair.alone) for request in requests]
    under_way = threading.Event()
    decoder = pair.model.decoder
    # The short ones are not to be done in the few calls in which others wait no longer for one.
    monkeypatch.setattr(decoder._decoder, "steps_ahead", min(2, decoder.steps_ahead))
    next_step = decoder._decoder.next_step

    def held(*args: Any, **options: Any) -> Step:
        """The first request waits before its eleventh token until the others have joined, or, if
        that was made ahead, where it asks next."""
        step = next_step(*args, **options)
        if step.positions[0] >= 10 and not under_way.is_set():
            under_way.set()
            deadline = time.monotonic() + 60
            while len(decoder._joined) < len(requests):
                assert time.monotonic() < deadline
                time.sleep(0.001)
        return step

    monkeypatch.setattr(decoder._decoder, "next_step", held)
    with ThreadPoolExecutor(len(requests)) as pool:
        pending = [pool.submit(requests[0].answer, pair.shared)]
        assert under_way.wait(60)
        pending += [pool.submit(request.answer, pair.shared) for request in requests[1:]]
        for one, other in zip(expected, pending, strict=True):
            pair.same(one, other.result(600))
    positions = [{int(step.positions[0]) for step in steps} for steps in executed]
    assert sum(len(different) > 1 for different in positions) >= 5 / decoder.steps_ahead
    assert max(map(len, executed)) == len(requests)
    assert len(executed[-1]) == 1  # the long one, alone again


def test_mixed_requests(pair: Pair) -> None:
    """Every caller with other options, batch and length; then all of them again."""
    requests = [
        pair.request(i, batch=1 + i % 3, frames=200 if i % 5 else 120, **options)
        for i, options in enumerate(OPTIONS.values())
    ]
    expected = [request.answer(pair.alone) for request in requests]
    for _ in range(2):
        found = at_once([partial(request.answer, pair.shared) for request in requests])
        for one, other in zip(expected, found, strict=True):
            pair.same(one, other)


def test_live_speech_beside_recordings(pair: Pair, executed: list[list[Step]]) -> None:
    """Streams whose audio ends at different frames are followed while recordings are decoded."""
    recordings = [pair.request(i, beam_size=1) for i in range(3)]
    streams = [(20 + i, content) for i, content in enumerate((100, 61, 35, 80))]

    def follow(replica: Replica, number: int, content: int) -> tuple[list[tuple[int, int]], Any]:
        request = pair.request(number, beam_size=1)
        call = GenerationCall(request.features, request.prompts, request.options)
        followed = replica.follow(call, content, until=content)
        frames = [(token.id, token.frame) for token in followed.tokens]
        return frames, [token.score for token in followed.tokens]

    expected = [request.answer(pair.alone) for request in recordings]
    alone = [follow(pair.alone, *stream) for stream in streams]
    for _ in range(2):
        found = at_once(
            [partial(request.answer, pair.shared) for request in recordings]
            + [partial(follow, pair.shared, *stream) for stream in streams]
        )
        for one, other in zip(expected, found, strict=False):
            pair.same(one, other)
        for (frames, scores), (frames_, scores_) in zip(alone, found[3:], strict=True):
            assert frames_ == frames
            assert scores_ == pytest.approx(scores, rel=1e-5)
    assert len({frame for frames, _ in alone for _, frame in frames}) > 4
    if not pair.exact:  # a CPU follows each stream by itself
        followed = [sum(step.request.attention is not None for step in steps) for steps in executed]
        assert max(followed) == len(streams)


def test_other_work_between(pair: Pair) -> None:
    """Languages, alignments and encodings are asked for while others decode."""
    v = pair.checkpoint.vocabulary
    requests = [pair.request(i) for i in range(3)]
    features = random_features((2, ARCHITECTURE.n_mels, 200), 40)

    def language(replica: Replica) -> Any:
        return replica.detect_language(features)

    def alignment(replica: Replica) -> Any:
        call = AlignmentCall(features, [v.sot], [[40, 41, 42], [50]], [200, 150], 7)
        return [(result.alignments, result.text_token_probs) for result in replica.align(call)]

    def encoding(replica: Replica) -> Any:
        return np.array(replica.encode(features, to_cpu=True))

    def repeat(other: Callable[[Replica], Any]) -> list[Any]:
        return [other(pair.shared) for _ in range(5)]

    others = [language, alignment, encoding]
    expected = [other(pair.alone) for other in others]
    answers = [request.answer(pair.alone) for request in requests]
    found = at_once(
        [partial(request.answer, pair.shared) for request in requests]
        + [partial(repeat, other) for other in others]
    )
    for one, other in zip(answers, found, strict=False):
        pair.same(one, other)
    for language_, alignment_, encoding_ in zip(*found[len(requests) :], strict=True):
        assert language_ == expected[0]
        assert alignment_ == expected[1]
        np.testing.assert_allclose(encoding_, expected[2], rtol=1e-5, atol=1e-5)


def test_errors_are_their_callers_own(pair: Pair) -> None:
    """A prompt that leaves no position, an option that is refused: others notice nothing."""
    good = [pair.request(i) for i in range(4)]
    expected = [request.answer(pair.alone) for request in good]
    v = pair.checkpoint.vocabulary
    full = dataclasses.replace(
        pair.request(0, suppress_tokens=[-1, v.eot]),
        prompts=[[v.to_id("<|startofprev|>"), *[40] * 440, *pair.request(0).prompts[0]]],
    )
    full = dataclasses.replace(full, options=dataclasses.replace(full.options, max_length=2000))
    refused = pair.request(1, beam_size=1, sampling_topk=10**6)
    errors: list[tuple[Request, type[Exception], str]] = [
        (full, RuntimeError, "No position encodings"),
        (refused, ValueError, "sampling_topk"),
    ]

    def fail(request: Request, error: type[Exception], message: str) -> None:
        for _ in range(3):
            with pytest.raises(error, match=message):
                request.answer(pair.shared)

    found = at_once(
        [partial(request.answer, pair.shared) for request in good]
        + [partial(fail, *error) for error in errors]
    )
    for one, other in zip(expected, found, strict=False):
        pair.same(one, other)


def test_a_failing_execution(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the device refuses steps together, they are executed alone; where it refuses one
    request's, that one fails."""
    requests = [pair.request(i) for i in range(4)]
    expected = [request.answer(pair.alone) for request in requests]
    decoder = pair.model.decoder._decoder
    execute = decoder.step_together

    def refusing(steps: Sequence[Step]) -> Any:
        if len(steps) > 1:
            raise RuntimeError("out of memory")
        if steps[0].request.beams == 4:
            raise RuntimeError("launch failed")
        return execute(steps)

    monkeypatch.setattr(decoder, "step_together", refusing)

    def fails() -> None:
        with pytest.raises(RuntimeError, match="launch failed"):
            pair.request(9, beam_size=4).answer(pair.shared)

    calls = [partial(request.answer, pair.shared) for request in requests]
    found = at_once([*calls, fails])
    for one, other in zip(expected, found, strict=False):
        pair.same(one, other)


def test_features_that_are_no_numbers(pair: Pair) -> None:
    """On a GPU that request fails, and others notice nothing."""
    good = [pair.request(i) for i in range(3)]
    expected = [request.answer(pair.alone) for request in good]
    bad = dataclasses.replace(good[0], features=np.full_like(good[0].features, np.nan))

    def answer() -> None:
        if pair.exact:  # on a CPU, as in the reference, some text comes of it
            assert bad.answer(pair.shared)
            return
        with pytest.raises(RuntimeError, match="no numbers"):
            bad.answer(pair.shared)

    found = at_once([*(partial(request.answer, pair.shared) for request in good), answer])
    for one, other in zip(expected, found, strict=False):
        pair.same(one, other)


def test_many_callers_again_and_again(pair: Pair) -> None:
    """More threads than are waited for at a time, coming and going."""
    options = list(OPTIONS.values())
    requests = [pair.request(i, **options[i % len(options)]) for i in range(12)]
    expected = [request.answer(pair.alone) for request in requests]

    def caller(first: int) -> None:
        for index in range(first, first + 6):
            pair.same(expected[index % 12], requests[index % 12].answer(pair.shared))

    at_once([partial(caller, first) for first in range(12)])
