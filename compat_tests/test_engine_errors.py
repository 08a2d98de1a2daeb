"""Bad input raises what the reference raises, and a message that names the input.

Where the reference reads out of bounds and dies, a ValueError is raised; those cases stand apart.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
import pytest

from compat_tests.support.errors import raised
from compat_tests.support.miniature import make_model
from compat_tests.support.numpy_runtime import NumpyWhisper, both, random_features, storage
from whisper_max_backend.engine.api import devices
from whisper_max_backend.engine.whisper import Whisper

SOT, EN, TRANSCRIBE, PLAIN = (
    "<|startoftranscript|>",
    "<|en|>",
    "<|transcribe|>",
    "<|notimestamps|>",
)
PROMPT = [SOT, EN, TRANSCRIBE]
Call = Callable[[Any, Callable[[np.ndarray], Any]], Any]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("one-head"), "one-head", n_text_ctx=64)


@pytest.fixture(scope="module")
def pair(directory: Path) -> tuple[Whisper, Any]:
    return both(directory)


@pytest.fixture(scope="module")
def english(tmp_path_factory: pytest.TempPathFactory) -> tuple[Whisper, Any]:
    return both(make_model(tmp_path_factory.mktemp("small-heads"), "small-heads"))


def compare(ours: Callable[[], Any], reference: Callable[[], Any], start: int = 0) -> Exception:
    """Both raise the same type; the first `start` letters of the messages are the same too."""
    expected, found = raised(reference), raised(ours)
    assert type(found) is type(expected), f"{found!r} instead of {expected!r}"
    assert str(found)[:start] == str(expected)[:start]
    assert str(found)
    return found


# Construction

CONSTRUCTIONS: dict[str, tuple[dict[str, Any], int]] = {
    "device": ({"device": "tpu"}, 22),
    "device in mixed case": ({"device": "Cpu"}, 22),
    "device of another type": ({"device": 0}, 0),
    "compute type": ({"compute_type": "int4"}, 26),
    "float16 on a CPU": ({"compute_type": "float16"}, 500),
    "int8_bfloat16 on a CPU": ({"compute_type": "int8_bfloat16"}, 500),
    "int8_float16 on a CPU": ({"compute_type": "int8_float16"}, 500),
    "compute type of another type": ({"compute_type": 8}, 0),
    "device index": ({"device_index": 1}, 27),
    "one device index of two": ({"device_index": [0, 1]}, 27),
    "no device index": ({"device_index": []}, 500),
    "device index of another type": ({"device_index": "0"}, 0),
    "fractional device index": ({"device_index": 0.0}, 0),
    "negative workers": ({"inter_threads": -1}, 0),
    "negative threads": ({"intra_threads": -1}, 0),
    "fractional threads": ({"intra_threads": 1.5}, 0),
    "queue of another type": ({"max_queued_batches": "1"}, 0),
    "tensor parallel": ({"tensor_parallel": True}, 15),
    "files of another type": ({"files": []}, 15),
    "files without content": ({"files": {}}, 30),
    "text for a file": ({"files": {"model.bin": "text"}}, 12),
    "unknown argument": ({"threads": 1}, 0),
}


@pytest.mark.parametrize("case", CONSTRUCTIONS)
def test_construction(directory: Path, case: str):
    options, start = CONSTRUCTIONS[case]
    compare(
        lambda: NumpyWhisper(str(directory), **options),
        lambda: ctranslate2.models.Whisper(str(directory), **options),
        start,
    )


def test_missing_directory(tmp_path: Path):
    path = str(tmp_path / "absent")
    error = compare(lambda: NumpyWhisper(path), lambda: ctranslate2.models.Whisper(path), 30)
    assert path in str(error)


def test_wrong_names_are_told_before_the_model_is_read(tmp_path: Path):
    path = str(tmp_path / "absent")
    wrong: tuple[dict[str, Any], ...] = ({"device": "tpu"}, {"compute_type": "int4"})
    for options in wrong:
        compare(
            partial(NumpyWhisper, path, **options),
            partial(ctranslate2.models.Whisper, path, **options),
            22,
        )


@pytest.mark.parametrize("name", ["cuda", "CUDA"])
def test_gpu_without_a_gpu(directory: Path, name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(devices, "gpu_count", lambda: 0)
    if ctranslate2.get_cuda_device_count() > 0:
        pytest.skip("the reference finds a GPU here")
    compare(
        lambda: NumpyWhisper(str(directory), device=name),
        lambda: ctranslate2.models.Whisper(str(directory), device=name),
    )


def test_automatic_device_without_a_gpu(directory: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(devices, "gpu_count", lambda: 0)
    assert NumpyWhisper(str(directory), device="auto").device == "cpu"


def test_no_workers(directory: Path):
    with pytest.raises(ValueError, match="inter_threads"):  # the reference would never answer
        NumpyWhisper(str(directory), inter_threads=0)


# Features


def array(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return np.zeros(shape, dtype)


@pytest.mark.parametrize("shape", [(80, 100), (1, 1, 80, 100), (1, 81, 100), (1, 80, 201), (5,)])
@pytest.mark.parametrize("method", ["encode", "generate", "detect_language"])
def test_feature_shapes(pair: tuple[Whisper, Any], shape: tuple[int, ...], method: str):
    ours, reference = pair
    arguments = [[PROMPT] * shape[0]] if method == "generate" else []
    compare(
        lambda: getattr(ours, method)(array(*shape), *arguments),
        lambda: getattr(reference, method)(storage(array(*shape)), *arguments),
        500,
    )


@pytest.mark.parametrize("shape", [(), (80,), (80, 100), (1, 1, 80, 100)])
def test_features_without_a_batch(pair: tuple[Whisper, Any], shape: tuple[int, ...]):
    """Told as such, not as a wrong number of prompts."""
    message = f"to have 3 dimensions, but got {len(shape)}"
    with pytest.raises(ValueError, match=message):
        pair[0].generate(array(*shape), [PROMPT])
    with pytest.raises(ValueError, match=message):
        pair[0].align(array(*shape), [5], [[40]], 20)
    with pytest.raises(ValueError, match=message):
        pair[0].detect_language(array(*shape))


@pytest.mark.parametrize("dtype", [np.int32, np.int8, "S2"])
def test_feature_types(pair: tuple[Whisper, Any], dtype: Any):
    ours, reference = pair
    features = array(1, 80, 100, dtype=dtype)
    compare(lambda: ours.encode(features), lambda: reference.encode(storage(features)))
    compare(lambda: ours.encode(storage(features)), lambda: reference.encode(storage(features)))


@pytest.mark.parametrize("features", [None, "text", [[[0.0]]], 1.0])
def test_no_features(pair: tuple[Whisper, Any], features: Any):
    ours, reference = pair
    compare(lambda: ours.encode(features), lambda: reference.encode(features))
    compare(lambda: ours.generate(features, [[]]), lambda: reference.generate(features, [[]]))


def test_no_frames(pair: tuple[Whisper, Any]):
    with pytest.raises(ValueError, match="no frames"):
        pair[0].encode(array(1, 80, 0))


# Generation

GENERATIONS: dict[str, tuple[Any, dict[str, Any], int]] = {
    "empty prompt": ([[]], {}, 500),
    "no start of transcript": ([["Ġthe"]], {}, 500),
    "start of transcript elsewhere": ([PROMPT, ["Ġthe", *PROMPT]], {}, 500),
    "unequal tasks": ([PROMPT, PROMPT[:2]], {}, 500),
    "mixed prompt": ([[SOT, 5]], {}, 0),
    "prompt of numbers": ([[1.5]], {}, 0),
    "negative id": ([[-1]], {}, 0),
    "prompt without batch": (PROMPT, {}, 0),
    "prompt of another type": (5, {}, 0),
    "beam 0": ([PROMPT], {"beam_size": 0}, 21),
    "negative beam": ([PROMPT], {"beam_size": -1}, 0),
    "fractional beam": ([PROMPT], {"beam_size": 2.0}, 0),
    "patience 0": ([PROMPT], {"patience": 0}, 27),
    "negative patience": ([PROMPT], {"patience": -1}, 27),
    "patience of another type": ([PROMPT], {"patience": "1"}, 0),
    "no hypothesis": ([PROMPT], {"num_hypotheses": 0}, 30),
    "too many hypotheses": ([PROMPT], {"num_hypotheses": 6}, 40),
    "too many greedy hypotheses": ([PROMPT], {"num_hypotheses": 2, "beam_size": 1}, 40),
    "no length": ([[SOT]], {"max_length": 0}, 30),
    "length taken by the prompt": ([PROMPT], {"max_length": 2}, 30),
    "negative length": ([PROMPT], {"max_length": -1}, 0),
    "no repetition penalty": ([PROMPT], {"repetition_penalty": 0}, 30),
    "sampling beyond the vocabulary": ([PROMPT], {"beam_size": 1, "sampling_topk": 10**6}, 30),
    "negative topk": ([PROMPT], {"sampling_topk": -1}, 0),
    "negative n-gram": ([PROMPT], {"no_repeat_ngram_size": -1}, 0),
    "negative timestamp index": ([PROMPT], {"max_initial_timestamp_index": -1}, 0),
    "suppressed number": ([PROMPT], {"suppress_tokens": 5}, 0),
    "suppressed set": ([PROMPT], {"suppress_tokens": {5}}, 0),
    "suppressed text": ([PROMPT], {"suppress_tokens": ["a"]}, 0),
    "unknown option": ([PROMPT], {"temperature": 0}, 0),
    "forced text beyond the context": ([[SOT, *["Ġthe"] * 100]], {"max_length": 400}, 62),
    "prompt beyond the context": ([["Ġthe"] * 70 + PROMPT], {"max_length": 500}, 62),
}


@pytest.mark.parametrize("case", GENERATIONS)
def test_generation(pair: tuple[Whisper, Any], case: str):
    prompts, options, start = GENERATIONS[case]
    ours, reference = pair
    features = array(len(prompts) if isinstance(prompts, list) else 1, 80, 20)
    compare(
        lambda: ours.generate(features, prompts, **options),
        lambda: reference.generate(storage(features), prompts, **options),
        start,
    )


def test_positional_options(pair: tuple[Whisper, Any]):
    ours, reference = pair
    features = array(1, 80, 20)
    compare(
        lambda: ours.generate(features, [PROMPT], True),  # type: ignore[call-arg]
        lambda: reference.generate(storage(features), [PROMPT], True),
    )


def test_asynchronous_errors_come_with_the_result(pair: tuple[Whisper, Any]):
    ours, reference = pair
    features = array(1, 80, 20)
    ours_waiting = ours.generate(features, [["Ġthe"]], asynchronous=True)
    waiting = reference.generate(storage(features), [["Ġthe"]], asynchronous=True)
    for _ in range(2):
        compare(ours_waiting[0].result, waiting[0].result, 500)  # type: ignore[union-attr]
    assert ours.num_active_batches == 0


def test_asynchronous_errors_of_no_items_come_at_once(pair: tuple[Whisper, Any]):
    """There is no result that could bring them; the reference would crash, or say nothing."""
    ours, reference = pair
    assert ours.generate(array(0, 80, 20), [], asynchronous=True) == []
    with pytest.raises(ValueError, match=r"prompts has 1 entries.*batch of 0"):
        ours.generate(array(0, 80, 20), [PROMPT], asynchronous=True)
    with pytest.raises(ValueError, match="to have 3 dimensions, but got 0"):
        ours.generate(array(), [PROMPT], asynchronous=True)
    with pytest.raises(ValueError, match="rank 0"):
        reference.generate(storage(array()), [PROMPT], asynchronous=True)


@pytest.mark.parametrize(("items", "prompts"), [(2, 1), (1, 2), (1, 0), (0, 1)])
def test_prompts_for_another_batch(pair: tuple[Whisper, Any], items: int, prompts: int):
    """The reference says so for 2 and 1; for others it has undefined results."""
    ours, reference = pair
    features = array(items, 80, 20)
    with pytest.raises(ValueError, match=f"prompts has {prompts} entries.*batch of {items}"):
        ours.generate(features, [PROMPT] * prompts)
    if items > prompts > 0:
        assert type(raised(lambda: reference.generate(storage(features), [PROMPT]))) is ValueError


def test_ids_beyond_the_vocabulary(pair: tuple[Whisper, Any]):
    """The reference dies."""
    ours, _ = pair
    sot = ours._vocabulary.sot
    with pytest.raises(ValueError, match=r"prompts\[0\] contains the token id 70000"):
        ours.generate(array(1, 80, 20), [[sot, 70000]])
    with pytest.raises(ValueError, match="suppress_tokens contains 70000"):
        ours.generate(array(1, 80, 20), [[sot]], suppress_tokens=[70000])
    with pytest.raises(ValueError, match=r"text_tokens\[1\] contains the token id 70000"):
        ours.align(array(2, 80, 20), [sot], [[1], [70000]], 20)


# Languages and alignments


def test_languages_of_an_english_model(english: tuple[Whisper, Any]):
    ours, reference = english
    features = array(1, 80, 20)
    compare(
        lambda: ours.detect_language(features),
        lambda: reference.detect_language(storage(features)),
        500,
    )


ALIGNMENTS: dict[str, tuple[tuple[Any, ...], dict[str, Any], int]] = {
    "too many frame counts": (([5], [[40]], [20, 20]), {}, 40),
    "too few frame counts": (([5], [[40]], []), {}, 40),
    "fractional frames": (([5], [[40]], 20.0), {}, 0),
    "negative frames": (([5], [[40]], -2), {}, 0),
    "text for ids": (([5], [["a"]], 20), {}, 0),
    "no batch of texts": (([5], [40], 20), {}, 0),
    "start of text": ((["a"], [[40]], 20), {}, 0),
    "negative width": (([5], [[40]], 20), {"median_filter_width": -1}, 0),
    "positional width": (([5], [[40]], 20, 7), {}, 0),
    "text beyond the context": (([5], [[40] * 62], 20), {}, 62),
}


@pytest.mark.parametrize("case", ALIGNMENTS)
def test_alignment(pair: tuple[Whisper, Any], case: str):
    arguments, options, start = ALIGNMENTS[case]
    ours, reference = pair
    features = array(1, 80, 20)
    compare(
        lambda: ours.align(features, *arguments, **options),
        lambda: reference.align(storage(features), *arguments, **options),
        start,
    )


def test_the_longest_text_fits(pair: tuple[Whisper, Any]):
    for model, features in ((pair[0], array(1, 80, 20)), (pair[1], storage(array(1, 80, 20)))):
        assert model.align(features, [5], [[40] * 61], 20)


def test_texts_for_another_batch(pair: tuple[Whisper, Any]):
    ours, reference = pair
    features = array(2, 80, 20)
    error = compare(
        lambda: ours.align(features, [5], [[40]], 20),
        lambda: reference.align(storage(features), [5], [[40]], 20),
    )
    assert "batch of 2" in str(error)


def test_no_median_filter(pair: tuple[Whisper, Any]):
    """The reference dies."""
    with pytest.raises(ValueError, match="median_filter_width"):
        pair[0].align(array(1, 80, 20), [5], [[40]], 20, median_filter_width=0)


def test_a_model_without_alignment_heads(tmp_path: Path):
    directory = make_model(tmp_path, "one-head")
    config = directory / "config.json"
    config.write_text(config.read_text().replace("alignment_heads", "other_heads"))
    ours, reference = both(directory)
    features = array(1, 80, 20)
    compare(
        lambda: ours.align(features, [5], [[40]], 20),
        lambda: reference.align(storage(features), [5], [[40]], 20),
        60,
    )


# Loading


def test_an_unloaded_model(directory: Path):
    ours, reference = both(directory)
    ours.unload_model()
    reference.unload_model()
    features = random_features((1, 80, 20))
    calls: list[Call] = [
        lambda model, form: model.encode(form(features)),
        lambda model, form: model.generate(form(features), [PROMPT]),
        lambda model, form: model.generate(form(features), [PROMPT], asynchronous=True),
        lambda model, form: model.detect_language(form(features)),
        lambda model, form: model.align(form(features), [5], [[40]], 20),
    ]
    for call in calls:
        error = compare(
            partial(call, ours, lambda value: value),
            partial(call, reference, storage),
        )
        assert "unloaded" in str(error)


def test_loading_again_what_is_gone(tmp_path: Path):
    directory = make_model(tmp_path, "one-head")
    ours, reference = both(directory)
    ours.unload_model()
    reference.unload_model()
    (directory / "model.bin").unlink()
    compare(ours.load_model, reference.load_model, 30)
    assert not ours.model_is_loaded
    assert not reference.model_is_loaded
