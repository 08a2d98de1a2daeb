"""Kernels for tensor cores are used on such a card alone, and only where it runs them rightly."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
from max.driver import CPU
from max.dtype import DType

from whisper_max_backend.engine.compile.artifacts import compiled
from whisper_max_backend.engine.compile.session import Session
from whisper_max_backend.engine.gpu import proofs
from whisper_max_backend.engine.gpu.graphs.layers import AMPERE, HOPPER, THREADS
from whisper_max_backend.engine.gpu.proofs import newest, proof_artifact, proven


class Card:
    """A GPU that is not there."""

    def __init__(self, api: str, architecture_name: str) -> None:
        self.api, self.architecture_name = api, architecture_name
        self.label, self.id = "gpu", 0

    def __str__(self) -> str:
        return self.architecture_name


H200: Any = Card("cuda", "sm_90a")
A100: Any = Card("cuda", "sm_80")
MI300: Any = Card("hip", "gfx942")
NAMES = (
    *("products", "steps", "attention_of_steps", "attention_of_prompts"),
    *("warpgroups", "chains"),
)


class Pairs:
    """A session whose card gives results, and the same ones the other way but for a change."""

    def __init__(self, **changes: Any) -> None:
        self.changes = changes

    def init_all(self, artifact: object) -> dict[str, Any]:
        return {name: Pair(self.changes.get(name, np.copy)) for name in NAMES}


class Pair:
    def __init__(self, change: Any) -> None:
        self.change = change

    def execute(self, *inputs: object) -> list[Any]:
        known = np.random.default_rng(3).standard_normal((2, 40)).astype(np.float32)
        return [Result(known), Result(known), Result(known), Result(self.change(known))]


class Result:
    """As MAX's buffers are."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def to_numpy(self) -> np.ndarray:
        return self.array


@pytest.fixture(autouse=True)
def no_device(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Nothing is compiled, nor put on a card."""
    if "slow" not in request.keywords:
        monkeypatch.setattr(proofs, "compiled", lambda **_: None)
        monkeypatch.setattr(proofs, "_drawing", lambda device: lambda *_: np.zeros((2, 2)))
        monkeypatch.setattr(proofs, "Buffer", Arrays)


class Arrays:
    @staticmethod
    def from_numpy(array: np.ndarray) -> Arrays:
        return Arrays()

    def to(self, device: object) -> Arrays:
        return self


def one_wrong(known: np.ndarray) -> np.ndarray:
    changed = known.copy()
    changed[-1, -1] += 1
    return changed


def one_missing(known: np.ndarray) -> np.ndarray:
    changed = known.copy()
    changed[0, 0] = np.nan
    return changed


def another_order(known: np.ndarray) -> np.ndarray:
    return known * np.float32(1 + 1e-6)


@pytest.mark.parametrize(("card", "generation"), [(A100, AMPERE), (H200, HOPPER)])
def test_a_card_that_computes_rightly(
    card: Any, generation: int, caplog: pytest.LogCaptureFixture
) -> None:
    session: Any = Pairs(**dict.fromkeys(NAMES[:-1], another_order))
    assert proven(card, DType.bfloat16, session) == generation
    assert not caplog.records


@pytest.mark.parametrize("change", [one_wrong, one_missing])
@pytest.mark.parametrize("name", NAMES[:-1])
@pytest.mark.parametrize("card", [A100, H200])
def test_a_card_that_computes_wrongly(
    card: Any, name: str, change: Any, caplog: pytest.LogCaptureFixture
) -> None:
    session: Any = Pairs(**{name: change})
    with caplog.at_level(logging.WARNING):
        found = proven(card, DType.bfloat16, session)
    if name != "warpgroups":
        assert found == THREADS
        assert f"{card} computes wrongly with its tensor cores" in caplog.text
    elif card is H200:
        assert found == AMPERE
        assert "multiplies wrongly with warpgroups" in caplog.text
    else:  # it has none
        assert found == AMPERE
        assert not caplog.records


@pytest.mark.parametrize(
    "early",
    [
        lambda known: np.nextafter(known, np.float32(np.inf)),
        lambda known: np.where(known == known.max(), np.nan, known),
    ],
)
def test_a_card_that_begins_too_early(early: Any, caplog: pytest.LogCaptureFixture) -> None:
    session: Any = Pairs(chains=early)
    with caplog.at_level(logging.WARNING):
        assert proven(H200, DType.bfloat16, session) == AMPERE
    assert "begins kernels too early" in caplog.text


def test_other_cards_and_types() -> None:
    nothing: Any = None  # there is nothing to prove
    assert newest(H200, DType.float16) == HOPPER
    assert newest(Card("cuda", "sm_100a"), DType.bfloat16) == AMPERE
    for card, dtype in ((H200, DType.float32), (MI300, DType.bfloat16), (CPU(), DType.bfloat16)):
        assert proven(card, dtype, nothing) == THREADS


@pytest.mark.slow
def test_the_graphs_that_ask() -> None:
    """On a CPU both sides are by the same kernels."""
    device, dtype = CPU(), DType.float32
    session = Session([device])
    graphs = session.init_all(compiled(**proof_artifact(device, dtype, session, HOPPER)))
    assert sorted(graphs) == sorted(NAMES)
    assert proofs.tensor_cores_agree(graphs, device, dtype)
    assert proofs.products_agree(graphs["warpgroups"], device, dtype)
    assert proofs.chains_agree(graphs["chains"], device, dtype)
