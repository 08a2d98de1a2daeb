"""Target: the engine's calls with wild arguments, in any order, on a miniature model.

A call fails unless it returns what it should or raises ValueError, TypeError or RuntimeError, as
the reference does. After each history the model still has to answer as it did at first.
"""

from __future__ import annotations

import faulthandler
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
from ctranslate2 import StorageView
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    rule,
    run_state_machine_as_test,
)

from compat_tests.fuzz.watch import Watch
from compat_tests.support.miniature import make_model
from compat_tests.support.numpy_runtime import random_features
from whisper_max_backend.engine.whisper import Whisper

_MELS, _FRAMES, _STATE, _CONTEXT = 80, 100, 64, 64  # of the model
_CALLS = 20  # at most, in a history
_HISTORIES = 10  # between looks at the clock
_DEADLOCK_SECONDS = 60

_sizes = st.integers(0, 3)
_numbers = st.one_of(
    *(st.integers(-2, 8), st.integers(), st.sampled_from([2**k for k in (15, 31, 32, 63, 64)])),
    *(st.floats(), st.sampled_from([0.0, 1.0, 0.5, 1e-30, 5e8, 3.4e38])),
)
_junk = st.one_of(
    *(st.none(), st.booleans(), st.text(max_size=3), st.binary(max_size=3), _numbers),
    *(st.lists(_numbers, max_size=3), st.just({}), st.just({5}), st.just(np.zeros(3))),
    *(st.builds(object), st.builds(np.float64, st.floats()), st.builds(np.int64, _sizes)),
)


def _wild(usual: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """What a sane caller gives, and now and then something else."""
    return st.integers(0, 30).flatmap(lambda chance: _junk if chance == 30 else usual)


def _ids(vocabulary: int) -> st.SearchStrategy[int]:
    ends = st.sampled_from([0, vocabulary - 1, vocabulary, 70_000, 2**31, 2**63, -1])
    usual = st.integers(0, vocabulary - 1)
    return st.integers(0, 30).flatmap(lambda chance: ends if chance == 30 else usual)


@st.composite
def _features(draw: st.DrawFn) -> Any:
    """Log-mel spectrograms of the right shape, or nearly, in every kind of array."""
    shape = [draw(st.integers(1, 3)), _MELS, draw(st.integers(1, _FRAMES))]
    if draw(st.integers(0, 5)) == 0:
        shape[draw(st.integers(0, 2))] = draw(st.sampled_from([0, 1, 79, 64, 101, 200]))
    values = random_features(shape, draw(st.integers(0, 5)))
    kind = draw(st.integers(0, 11))
    if kind == 0:
        return values.astype(draw(st.sampled_from(["f2", "f8", "i4", "c8", "?", "O", "U1"])))
    if kind == 1:
        special = draw(st.sampled_from([math.nan, math.inf, -math.inf, 3e38, 1e-40]))
        return np.where(random_features(shape) > 0.9, np.float32(special), values)
    if kind == 2 and len(values):
        return draw(st.sampled_from([values[0], values[None], values[:, ::-1], values.T]))
    if kind == 3 and len(values):
        return np.broadcast_to(values[:1], (2, *values.shape[1:]))
    if kind == 4 and values.size:
        return StorageView.from_array(values)
    return values


class Calls(RuleBasedStateMachine):
    """A history of calls. The class attributes are set by `main`."""

    model: Whisper
    watch: Watch
    expected: Any

    def __init__(self) -> None:
        super().__init__()
        self._encoded: Any = None
        self._vocabulary = self.model._vocabulary

    def _call(
        self, verify: Callable[[Any], None], name: str, *arguments: Any, **options: Any
    ) -> None:
        """Call the model, and let `verify` look at what it returns."""
        text = f"{name}(*{arguments!r}, **{options!r})"

        def check() -> str:
            try:
                result = getattr(self.model, name)(*arguments, **options)
                if options.get("asynchronous"):
                    result = [item.result() for item in result]
            except (ValueError, TypeError, RuntimeError) as error:
                assert str(error), "no message"  # noqa: PT017
                return f"{name} refused, {type(error).__name__}"
            verify(result)
            return f"{name} answered"

        faulthandler.dump_traceback_later(_DEADLOCK_SECONDS, exit=True)
        self.watch.run(text.encode("utf-8", "backslashreplace"), check)

    def _given(self, data: st.DataObject) -> Any:
        """Features, or what `encode` returned."""
        if self._encoded is not None and data.draw(st.booleans()):
            return self._encoded
        return data.draw(_wild(_features()))

    @rule(data=st.data())
    def encode(self, data: st.DataObject) -> None:
        features = data.draw(_wild(_features()))

        def verify(encoded: Any) -> None:
            batch, _, frames = np.shape(features)
            assert encoded.shape == [batch, (frames + 1) // 2, _STATE]
            self._encoded = encoded

        self._call(verify, "encode", features, data.draw(_wild(st.booleans())))

    @rule(data=st.data())
    def generate(self, data: st.DataObject) -> None:
        features = self._given(data)
        batch = min([3, *np.shape(features)[:1]])
        vocabulary = self._vocabulary
        tasks = [vocabulary.sot, vocabulary.sot + 1, vocabulary.no_timestamps]
        ids = st.lists(_ids(vocabulary.size), max_size=4)
        prompt = st.one_of(st.just(tasks), st.just(tasks[:2]), ids, ids.map(lambda i: tasks + i))
        prompts = data.draw(
            _wild(
                st.one_of(
                    prompt.map(lambda one: [one] * batch),
                    st.lists(prompt, max_size=3),
                    st.just([["<|startoftranscript|>", "<|en|>", "no such token"]] * batch),
                )
            )
        )
        usual = {
            "asynchronous": st.booleans(),
            "beam_size": st.integers(0, 6),
            "patience": st.floats(0, 4),
            "num_hypotheses": st.integers(0, 4),
            "length_penalty": st.floats(-2, 2),
            "repetition_penalty": st.floats(0, 3),
            "no_repeat_ngram_size": st.integers(0, 4),
            "return_scores": st.booleans(),
            "return_logits_vocab": st.booleans(),
            "return_no_speech_prob": st.booleans(),
            "max_initial_timestamp_index": st.integers(0, 60),
            "suppress_blank": st.booleans(),
            "suppress_tokens": st.lists(_ids(vocabulary.size), max_size=3),
            "sampling_topk": st.integers(0, 5),
            "sampling_temperature": st.floats(0, 2),
        }
        options = data.draw(
            st.fixed_dictionaries(
                {"max_length": _wild(st.integers(0, 80))},
                optional={key: _wild(value) for key, value in usual.items()},
            )
        )

        def verify(results: Any) -> None:
            assert len(results) == len(prompts)
            for result in results:
                assert len(result.sequences_ids) <= options.get("num_hypotheses", 1)
                for sequence in result.sequences_ids:
                    assert all(0 <= index < vocabulary.size for index in sequence)
                    assert len(sequence) <= _CONTEXT
                scored = bool(options.get("return_scores"))
                assert len(result.scores) == scored * len(result.sequences_ids)

        self._call(verify, "generate", features, prompts, **options)

    @rule(data=st.data())
    def detect_language(self, data: st.DataObject) -> None:
        def verify(results: Any) -> None:
            for languages in results:
                chances = [chance for _, chance in languages]
                assert len(chances) == self.model.num_languages
                if np.isfinite(chances).all():
                    assert chances == sorted(chances, reverse=True)
                    assert math.isclose(sum(chances), 1, abs_tol=1e-3)

        self._call(verify, "detect_language", self._given(data))

    @rule(data=st.data())
    def align(self, data: st.DataObject) -> None:
        features = self._given(data)
        batch = min([3, *np.shape(features)[:1]])
        ids = _ids(self._vocabulary.size)
        start = data.draw(_wild(st.lists(ids, max_size=4)))
        text = st.lists(ids, max_size=6)
        texts = data.draw(_wild(st.lists(text, min_size=batch, max_size=3)))
        frames = data.draw(_wild(st.one_of(st.integers(0, 120), st.lists(st.integers(0, 120)))))
        options = {}
        if data.draw(st.booleans()):
            options["median_filter_width"] = data.draw(_wild(st.integers(0, 9)))

        def verify(results: Any) -> None:
            for result, tokens in zip(results, texts, strict=True):
                assert len(result.text_token_probs) == len(tokens)
                assert all(0 <= token <= len(tokens) for token, _ in result.alignments)
                if np.max(np.abs(features), initial=0) < 1e30:  # else -1, as in the reference
                    assert all(frame >= 0 for _, frame in result.alignments)

        self._call(verify, "align", features, start, texts, frames, **options)

    @rule(to_cpu=_wild(st.booleans()), keep=_wild(st.booleans()))
    def unload_and_load(self, to_cpu: Any, keep: Any) -> None:
        def verify(_: Any) -> None:
            """Nothing is returned."""

        self._call(verify, "unload_model", to_cpu)
        self._call(verify, "load_model", keep)

    def teardown(self) -> None:
        def check() -> str:
            if not self.model.model_is_loaded:
                self.model.load_model()
            assert _answers(self.model) == self.expected, "not what the model said at first"
            return "sound call answered"

        self.watch.run(b"the answers after a history", check)


def _answers(model: Whisper) -> Any:
    """What the model says of sound arguments."""
    features = random_features((2, _MELS, _FRAMES), seed=1)
    prompt = [model._vocabulary.sot, model._vocabulary.sot + 1]
    results: Any = model.generate(features, [prompt] * 2, beam_size=2, max_length=_CONTEXT)
    aligned = model.align(features, prompt, [[40, 41]] * 2, 90)
    return [r.sequences_ids for r in results], [r.alignments for r in aligned]


def main(scratch: str, findings: str, runs: str, seconds: str, seed: str, _: str) -> None:
    """Run histories until there were so many calls, or for so long (0 and -1: no limit)."""
    end = time.monotonic() + (int(seconds) or math.inf)
    model = Whisper(
        str(make_model(Path(scratch, "model"), "one-head", n_text_ctx=_CONTEXT)),
        compute_type="float32",
    )
    Calls.model, Calls.expected = model, _answers(model)
    Calls.watch = watch = Watch(Path(findings), Path(scratch, "counts.json"), "calls")
    np.seterr(all="ignore")
    batch = int(seed) << 32
    while time.monotonic() < end and not 0 <= int(runs) <= watch.inputs:
        run_state_machine_as_test(
            hypothesis.seed(batch)(Calls),
            settings=settings(
                max_examples=_HISTORIES,
                stateful_step_count=_CALLS,
                database=None,
                deadline=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            ),
        )
        batch += 1


if __name__ == "__main__":
    main(*sys.argv[1:])
