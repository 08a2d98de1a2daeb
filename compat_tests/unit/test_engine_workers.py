"""The engine's workers: threads that share a model, requests that wait, models that come and go.

As in test_engine_surface.py, the engine computes in numpy.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compat_tests.support.miniature import ARCHITECTURES, make_model
from compat_tests.support.numpy_runtime import NumpyWhisper, both, random_features
from compat_tests.support.waiting import until
from whisper_max_backend.engine.whisper import Whisper
from whisper_max_backend.system.cancellation import StopFlag
from whisper_max_backend.system.unpatched_threads import thread_ids

PROMPTS = [["<|startoftranscript|>", "<|en|>", "<|transcribe|>"]] * 2


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("one-head"), "one-head")


@pytest.fixture(scope="module")
def features() -> np.ndarray:
    return random_features((len(PROMPTS), ARCHITECTURES["one-head"].n_mels, 60))


def sequences(results: Any) -> list[Any]:
    return [result.sequences_ids for result in results]


def test_threads_may_share_a_model(directory: Path, features: np.ndarray):
    ours, _ = both(directory, inter_threads=2)
    expected = sequences(ours.generate(features, PROMPTS, max_length=20))
    with ThreadPoolExecutor(8) as threads:
        results = list(
            threads.map(lambda _: ours.generate(features, PROMPTS, max_length=20), range(16))
        )
    assert all(sequences(result) == expected for result in results)
    assert (ours.num_workers, ours.num_queued_batches, ours.num_active_batches) == (2, 0, 0)


class Gate:
    """Holds every encoding until it is opened."""

    def __init__(self, model: Whisper) -> None:
        self.opened = threading.Event()
        free = model._workers._free
        assert free is not None
        replica = free.get()
        numpy_model: Any = replica._model
        numpy_model.encode = self._wait(numpy_model.encode)
        free.put(replica)

    def _wait(self, encode: Any) -> Any:
        def held(features: np.ndarray, stop: StopFlag) -> np.ndarray:
            assert self.opened.wait(20)
            return encode(features, stop)

        return held


@pytest.fixture
def gated(directory: Path) -> Iterator[tuple[Whisper, Gate]]:
    model = NumpyWhisper(str(directory), max_queued_batches=1)
    gate = Gate(model)
    yield model, gate
    gate.opened.set()


def test_a_full_queue_blocks_and_is_counted(gated: tuple[Whisper, Gate], features: np.ndarray):
    model, gate = gated
    posted: list[Any] = []

    def post() -> None:
        posted.extend(model.generate(features, PROMPTS, max_length=8, asynchronous=True))

    post()
    until(lambda: model.num_queued_batches == 0)  # the worker has taken it
    post()
    assert (model.num_queued_batches, model.num_active_batches) == (1, 2)
    third = threading.Thread(target=post)
    third.start()
    until(lambda: model.num_active_batches == 3)
    assert len(posted) == 2 * len(PROMPTS)
    assert not posted[0].done()
    model.unload_model()  # not while requests are active
    assert model.model_is_loaded
    gate.opened.set()
    third.join(20)
    assert all(p.result().sequences for p in posted)
    assert (model.num_queued_batches, model.num_active_batches) == (0, 0)
    model.unload_model()
    assert not model.model_is_loaded


def test_workers_end_with_their_model(directory: Path, features: np.ndarray):
    before = thread_ids()
    model = NumpyWhisper(str(directory), inter_threads=2)
    model.encode(features)
    until(lambda: len(thread_ids() - before) == 2)
    started = thread_ids() - before
    del model
    until(lambda: not started & thread_ids())


def test_a_model_can_be_unloaded_and_loaded_again(directory: Path, features: np.ndarray):
    ours, reference = both(directory)
    expected = sequences(ours.generate(features, PROMPTS, max_length=20))
    for model in (ours, reference):
        model.unload_model(to_cpu=True)  # it is there already
        assert model.model_is_loaded
        model.unload_model()
        model.unload_model()
        assert not model.model_is_loaded
        assert (model.device, model.num_workers, model.device_index) == ("cpu", 1, [0])
        model.load_model(keep_cache=True)
        model.load_model()
        assert model.model_is_loaded
    assert sequences(ours.generate(features, PROMPTS, max_length=20)) == expected


def test_files_in_memory_are_read_once(directory: Path, features: np.ndarray):
    contents: dict[str, Any] = {
        path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()
    }
    contents["model.bin"] = io.BytesIO(contents["model.bin"])
    model = NumpyWhisper(str(directory), files=contents)
    expected = np.array(model.encode(features))
    model.unload_model()
    model.load_model()
    np.testing.assert_array_equal(np.array(model.encode(features)), expected)


def test_paths_may_be_path_objects(directory: Path):
    assert NumpyWhisper(directory).n_mels == 80


def test_a_model_may_be_given_to_a_device_twice(directory: Path):
    ours, reference = both(directory, device_index=[0, 0], inter_threads=2)
    assert ours.num_workers == reference.num_workers == 4
    assert ours.device_index == reference.device_index == [0, 0]
