"""The benchmark of a GPU: its peers, its rows and its watch, at miniature sizes on the CPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from max.driver import CPU
from max.dtype import DType

from benchmarks.gpu import cases, device, models, peers, products, run
from benchmarks.record import ROOT, read
from whisper_max_backend.engine.checkpoint.load import dense
from whisper_max_backend.engine.gpu.weights import weight_bytes

SMALL = ("--size", "miniature", "--device", "cpu", "--tokens", "4", "--batch", "2", "--rounds", "1")


def test_a_peer_tells_seconds_by_case() -> None:
    answer = peers.ask("faster_whisper", *SMALL)
    assert set(answer) == {"window", "batch"}, answer
    assert all(seconds > 0 for seconds in answer.values())


def test_a_peer_that_cannot_run_says_why() -> None:
    answer = peers.ask("faster_whisper", "--size", "miniature", "--device", "no device")
    assert list(answer) == ["error"]
    assert "no device" in answer["error"]


def test_a_peer_that_ends_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a library does that finds another missing."""
    result = SimpleNamespace(returncode=-6, stdout="", stderr="loading\nInvalid handle\n")
    monkeypatch.setattr("subprocess.run", lambda *_, **__: result)
    assert peers.ask("transformers") == {"error": "ended with status -6: Invalid handle"}


def test_rows_tell_the_ratio_or_why_there_is_none() -> None:
    answers: dict[str, dict[str, Any]] = {
        "faster_whisper": {"window": 3.0},
        "transformers": {"error": "no torch"},
    }
    row: dict[str, Any] = cases._beside({"seconds": 0.5}, answers, "window", times=2)
    assert row == {
        "seconds": 0.5,
        "ratio_to_faster_whisper": 12.0,
        "ratio_to_transformers": None,
        "transformers": "cannot run: no torch",
    }


def test_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mean use and most memory of what was seen; None where nobody tells."""
    looks = iter([(0.5, 100), (1.0, 300), (0.9, 200)])
    seen: list[Any] = []

    def look() -> tuple[float, int] | None:
        seen.append(next(looks, None))
        return seen[-1]

    monkeypatch.setattr(device, "_looker", lambda: look)
    with device.Watch() as watch:
        while len(seen) < 4:
            watch._stop.wait(0.01)
    assert watch.utilisation == pytest.approx(0.8)
    assert watch.peak_mib == 300
    monkeypatch.setattr(device, "_looker", lambda: lambda: None)
    with device.Watch() as watch:
        pass
    assert (watch.utilisation, watch.peak_mib) == (None, None)


@pytest.mark.parametrize("size", list(models.SIZES))
def test_bytes_of_a_step(size: str) -> None:
    """int8 takes off a step what it takes off the weights on the device."""
    d = models.SIZES[size]
    floats, int8 = (weight_bytes(d, DType.bfloat16, kept) for kept in (DType.bfloat16, DType.int8))
    saved = models.device_step_bytes(d, "bfloat16") - models.device_step_bytes(d, "int8_bfloat16")
    assert saved == floats - int8 > 0


def test_int8_model() -> None:
    """The decoder's matrices are int8, and within half a step of the random ones."""
    d = models.SIZES["miniature"]
    random, int8 = models.random_model(d), models.int8_model(d)
    names = {name for name, array in int8.weights.items() if array.dtype == np.int8}
    assert len(names) == 1 + 6 * d.n_text_layer
    for name in names:
        error = np.abs(dense(int8.weights, name) - random.weights[name])
        step = 1 / int8.weights[f"{name}_scale"]
        assert (error <= 0.501 * step[:, None]).all(), name


def test_products_are_proved() -> None:
    """As they are on the CPU; and a wrong or a wandering one is told."""
    proofs = list(products.prove_products(CPU(), DType.float32, repeats=2))
    assert {proof.name.partition(",")[0] for proof in proofs} == {"alone", "between"}
    assert len(proofs) == 2 * len(products.SMALL_ROWS)
    assert all(products.good(proof, DType.float32) for proof in proofs), proofs
    assert all(proof.error < 1e-6 for proof in proofs), proofs
    assert not products.good(products.Proof("wanders", 0, same=False), DType.float32)
    assert not products.good(products.Proof("wrong", float("inf"), same=True), DType.float32)


def test_stages_in_their_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A call has its part; what fails is told; what no time is left for is named."""
    seen: list[str] = []

    def stage(name: str) -> Any:
        def made(self: run.Run) -> None:
            seen.append(name)
            if name == "kernels":
                raise ValueError("a kernel")
            if name == "steps":
                self._keep("cases", {"case": "a step", "seconds": 1})

        return made

    for name in run.STAGES:
        monkeypatch.setattr(run.Run, f"_{name}", stage(name))

    def made(resume: bool) -> run.Run:
        return run.Run(CPU(), ["miniature"], [], True, None, None, tmp_path, resume)

    assert not made(resume=False).all(run.FIRST_CALL, seconds=None), "a stage failed"
    assert seen == list(run.FIRST_CALL)
    seen.clear()
    assert made(resume=True).all(run.SECOND_CALL, seconds=-1)
    assert seen == []
    (path,) = tmp_path.iterdir()
    found = read(path).found
    assert [row["stage"] for row in found["stages"]] == list(run.STAGES)
    assert [row["stage"] for row in found["stages"] if "left_out" in row] == list(run.SECOND_CALL)
    assert found["cases"] == [{"case": "a step", "seconds": 1}]
    assert found["failures"] == [{"part": "kernels", "error": "ValueError('a kernel')"}]


@pytest.mark.slow
def test_the_first_call_beside_an_old_checkout(tmp_path: Path) -> None:
    """The command itself, at miniature sizes on the CPU; the other checkout is this one."""
    command = [sys.executable, "-m", "benchmarks", "gpu", "--device", "cpu", "--call", "1"]
    command += ["--peers", "", "--no-int8", "--old", str(ROOT), "--results", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert result.returncode == 0, result.stderr[-4000:]
    (path,) = tmp_path.iterdir()
    found = read(path).found
    assert [row["stage"] for row in found["stages"]] == list(run.FIRST_CALL)
    timed = [row["case"] for row in found["cases"]]
    assert timed == [row["case"] for row in found["old"]["cases"]]
    assert timed[:2] == ["miniature, encoder, 1 windows", "miniature, encoder, 8 windows"]
    assert all(row["good"] for part in ("products", "kernels") for row in found[part])
