"""Captured executions, on a stand-in for a model whose device captures."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from max.driver import CPU, Buffer

from whisper_max_backend.engine.gpu import captured_graphs as module
from whisper_max_backend.engine.gpu.captured_graphs import CapturedGraphs, Execution
from whisper_max_backend.engine.gpu.staging import parts, staged
from whisper_max_backend.engine.state.device_locks import locks_of

KEPT = (Buffer.from_numpy(np.full(1, 100, np.int32)), Buffer.from_numpy(np.zeros(1, np.int32)))
OTHER = (Buffer.from_numpy(np.full(1, 500, np.int32)), KEPT[1])


class Model:
    """Adds up its inputs; a replay does so with the buffers of the capture."""

    def __init__(self, refuses: str = "", wrong: bool = False) -> None:
        self.refuses = refuses
        self.wrong = wrong
        self.calls: list[str] = []
        self.graphs: dict[int, tuple[list[Buffer], list[Buffer]]] = {}

    def _sum(self, inputs: Sequence[Buffer]) -> np.ndarray:
        return np.array([sum(int(one.to_numpy().sum()) for one in inputs)], np.int32)

    def _tell(self, call: str) -> None:
        self.calls.append(call)
        if call == self.refuses:
            raise RuntimeError(f"{call} is not supported")

    def execute(self, *inputs: Buffer) -> list[Buffer]:
        self._tell("execute")
        return [Buffer.from_numpy(self._sum(inputs))]

    def capture(self, number: int, *inputs: Buffer) -> list[Buffer]:
        self._tell("capture")
        outputs = [Buffer.from_numpy(np.zeros(1, np.int32))]
        self.graphs[number] = list(inputs), outputs
        return outputs

    def debug_verify_replay(self, number: int, *inputs: Buffer) -> None:
        self._tell("verify")
        assert all(a is b for a, b in zip(self.graphs[number][0], inputs, strict=True))

    def replay(self, number: int, *inputs: Buffer) -> None:
        self._tell("replay")
        captured, outputs = self.graphs[number]
        assert all(a is b for a, b in zip(captured, inputs, strict=True))
        outputs[0].to_numpy()[:] = self._sum(captured) + self.wrong

    def release_captured_graph(self, number: int) -> None:
        self._tell("release")
        self.graphs.pop(number, None)


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> CapturedGraphs:
    monkeypatch.setenv(module.VARIABLE, "1")
    return CapturedGraphs(CPU(), "sums")


def run(
    graphs: CapturedGraphs, model: Any, *arrays: np.ndarray, kind: str = "", kept: Any = KEPT
) -> int:
    return result(begin(graphs, model, *arrays, kind=kind, kept=kept))


def begin(
    graphs: CapturedGraphs, model: Any, *arrays: np.ndarray, kind: str = "", kept: Any = KEPT
) -> Execution:
    named = {str(index): array for index, array in enumerate(arrays)}
    return graphs.execute(
        model, kind, named, kept, lambda given: [*kept, *(given[name] for name in named)]
    )


def result(execution: Execution) -> int:
    return int(execution.results[0].to_numpy()[0])


def warnings(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.levelno >= logging.WARNING]


def numbers(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


def test_arrays_in_one_piece() -> None:
    arrays = {
        "row": numbers(1, 2, 3),
        "table": np.ones((2, 40), np.float32),
        "empty": np.zeros((0, 3), np.int32),
        "columns": np.arange(6, dtype=np.int32).reshape(2, 3).T,
    }
    found = parts(Buffer.from_numpy(staged(arrays)), arrays)
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name].to_numpy(), array)
    assert staged({}).size > 0


def test_on_by_itself_on_nvidia_gpus_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(module.VARIABLE, raising=False)
    nvidia: Any = SimpleNamespace(api="cuda")
    assert CapturedGraphs(nvidia, "sums").wanted
    model = Model()
    graphs = CapturedGraphs(CPU(), "sums")
    assert [run(graphs, model, numbers(i)) for i in range(4)] == [100, 101, 102, 103]
    assert model.calls == ["execute"] * 4


def test_the_second_is_captured_and_the_third_replayed(graphs: CapturedGraphs) -> None:
    model = Model()
    assert [run(graphs, model, numbers(i), numbers(1, 2)) for i in range(5)] == [
        103,
        104,
        105,
        106,
        107,
    ]
    assert model.calls == ["execute", "execute", "capture", "verify", *["replay"] * 4]


def test_results_that_last(graphs: CapturedGraphs) -> None:
    """A replay writes to the buffers of the last one; who keeps results gets buffers of his own."""
    model = Model()
    found = [begin(graphs, model, numbers(i)).lasting_results()[0] for i in range(5)]
    assert model.calls.count("replay") == 4
    assert [int(one.to_numpy()[0]) for one in found] == [100, 101, 102, 103, 104]


def test_each_shape_and_kind_has_its_own(graphs: CapturedGraphs) -> None:
    model = Model()
    for i in range(5):
        assert run(graphs, model, numbers(i)) == 100 + i
        assert run(graphs, model, numbers(i, 10)) == 110 + i
        assert run(graphs, model, numbers(i), kind="other") == 100 + i
    assert model.calls.count("capture") == len(model.graphs) == 3
    assert model.calls.count("execute") == 6


def test_other_buffers_are_captured_anew(graphs: CapturedGraphs) -> None:
    """What holds the old ones is let go of."""
    model = Model()
    for i in range(4):
        assert run(graphs, model, numbers(i)) == 100 + i
    for i in range(4):
        assert run(graphs, model, numbers(i), kept=OTHER) == 500 + i
    assert model.calls.count("capture") == 2
    assert len(model.graphs) == len(graphs._captured) == 1


def test_no_more_than_so_many_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that were not used for the longest time go."""
    monkeypatch.setenv(module.VARIABLE, "1")
    graphs = CapturedGraphs(CPU(), "sums", most=2)
    model = Model()
    for kind in ("a", "b", "a", "c"):
        for i in range(3):
            assert run(graphs, model, numbers(i), kind=kind) == 100 + i
    assert len(model.graphs) == 2
    calls = len(model.calls)
    assert run(graphs, model, numbers(7), kind="a") == 107
    assert model.calls[calls:] == ["replay"]


def test_shapes_that_never_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(module.VARIABLE, "1")
    graphs = CapturedGraphs(CPU(), "sums", most=1)
    model = Model()
    for length in range(1, 200):
        run(graphs, model, np.zeros(length, np.int32))
    assert len(graphs._seen) <= 64
    assert set(model.calls) == {"execute"}


@pytest.mark.parametrize("refuses", ["capture", "verify", "replay"])
def test_a_device_that_refuses_again_and_again(
    graphs: CapturedGraphs, refuses: str, caplog: pytest.LogCaptureFixture
) -> None:
    """From then on everything is executed, nothing is held on to, and the log says so once."""
    model = Model(refuses)
    for kind in ("", "other"):
        for i in range(6):
            assert run(graphs, model, numbers(i), kind=kind) == 100 + i
    (record,) = warnings(caplog)
    assert f"{refuses} is not supported" in record.getMessage()
    assert model.calls.count(refuses) == module.MAX_FAILURES
    assert model.calls.count("execute") == 12
    assert model.graphs == {}
    assert not graphs._captured


@pytest.mark.parametrize("refuses", ["capture", "verify", "replay"])
def test_a_failure_that_passes(
    graphs: CapturedGraphs, refuses: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What failed is executed, and captured another time, however often that happens."""
    for _ in range(2 * module.MAX_FAILURES):
        model = Model(refuses)
        for i in range(2):
            assert run(graphs, model, numbers(i)) == 100 + i
        model.refuses = ""
        assert model.graphs == {}
        for i in range(4):
            assert run(graphs, model, numbers(i)) == 100 + i
        assert model.calls[-1] == "replay"
        graphs._forget_unless(None)
    assert graphs.wanted
    assert warnings(caplog) == []


def test_a_replay_that_fails(graphs: CapturedGraphs) -> None:
    """Its results come from an execution."""
    model = Model()
    for i in range(3):
        assert run(graphs, model, numbers(i)) == 100 + i
    model.refuses = "replay"
    assert run(graphs, model, numbers(7)) == 107
    assert model.graphs == {}
    model.refuses = ""
    for i in range(4):
        assert run(graphs, model, numbers(i)) == 100 + i
    assert model.calls[-1] == "replay"


@pytest.mark.parametrize("executions", [1, 2, 3], ids=["executed", "captured", "replayed"])
def test_an_execution_is_repeated(graphs: CapturedGraphs, executions: int) -> None:
    """With what its inputs hold by then."""
    model = Model()
    for _ in range(executions):
        execution = begin(graphs, model, numbers(1))
    for i in (5, 6):
        execution.arrays["0"].to_numpy()[:] = i
        execution.repeat()
        assert result(execution) == 100 + i
    repeated = "replay" if executions == 3 else "execute"
    assert model.calls[-2:] == [repeated] * 2


def test_a_repetition_that_fails(graphs: CapturedGraphs) -> None:
    """Its results, and those of further ones, come from executions; the next begins anew."""
    model = Model()
    for _ in range(3):
        execution = begin(graphs, model, numbers(1))
    model.refuses = "replay"
    for i in (5, 6):
        execution.arrays["0"].to_numpy()[:] = i
        execution.repeat()
        assert result(execution) == 100 + i
    assert model.calls.count("replay") == 3
    model.refuses = ""
    assert run(graphs, model, numbers(7)) == 107
    assert model.graphs == {}
    assert model.calls[-2:] == ["release", "execute"]
    assert graphs._failures == 1


def test_nobody_uses_the_device_during_a_capture(
    graphs: CapturedGraphs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever does without the turn, as for features, holds this lock."""
    beside = locks_of(CPU()).beside
    held = []
    model = Model()
    capture = model.capture

    def watched(number: int, *inputs: Buffer) -> list[Buffer]:
        held.append(beside.locked())
        return capture(number, *inputs)

    monkeypatch.setattr(model, "capture", watched)
    for i in range(3):
        assert run(graphs, model, numbers(i)) == 100 + i
    assert held == [True]
    assert not beside.locked()


def test_a_replay_that_gives_other_results(
    graphs: CapturedGraphs, caplog: pytest.LogCaptureFixture
) -> None:
    model = Model(wrong=True)
    assert [run(graphs, model, numbers(i)) for i in range(8)] == list(range(100, 108))
    assert "other results" in caplog.text
    assert model.graphs == {}


def test_errors_of_the_model_itself_are_raised(graphs: CapturedGraphs) -> None:
    model = Model("execute")
    for _ in range(3):
        with pytest.raises(RuntimeError, match="execute is not supported"):
            run(graphs, model, numbers(1))
    assert graphs.wanted
