"""Hopper's own kernels are used on such a card alone, and only where it runs them rightly."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
from max.driver import CPU
from max.dtype import DType

from whisper_max_backend.engine.compile.artifacts import compiled
from whisper_max_backend.engine.compile.session import Session
from whisper_max_backend.engine.gpu import hopper
from whisper_max_backend.engine.gpu.hopper import (
    chains_agree,
    is_hopper,
    products_agree,
    proof_artifact,
    uses_hopper,
)


class Card:
    """A GPU that is not there."""

    def __init__(self, api: str, architecture_name: str) -> None:
        self.api, self.architecture_name = api, architecture_name
        self.label, self.id = "gpu", 0


HOPPER: Any = Card("cuda", "sm_90a")
OTHERS: tuple[Any, ...] = (
    CPU(),
    Card("cuda", "sm_89"),
    Card("cuda", "sm_100a"),
    Card("hip", "gfx942"),
)


class Proofs:
    """A session whose card multiplies, and begins early, as a test says."""

    def __init__(self, own: Any, early: Any = np.copy) -> None:
        self.own, self.early = own, early

    def init_all(self, artifact: object) -> dict[str, Any]:
        return {"products": Products(self.own), "chains": Chains(self.early)}


class Products:
    def __init__(self, own: Any) -> None:
        self.own = own

    def execute(self, x: np.ndarray, weight: np.ndarray) -> list[Any]:
        known = (x @ weight.T).view(Result)
        return [known, self.own(known.copy())]


class Chains:
    def __init__(self, early: Any) -> None:
        self.early = early

    def execute(self, stream: np.ndarray, vector: np.ndarray, weight: np.ndarray) -> list[Any]:
        known = (stream @ weight.T + vector).view(Result)
        return [known, self.early(known).view(Result)]


class Result(np.ndarray):
    """As MAX's buffers have it."""

    def to_numpy(self) -> np.ndarray:
        return np.asarray(self)


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes sessions that compile nothing."""
    monkeypatch.setattr(hopper, "compiled", lambda **_: None)
    monkeypatch.setattr(hopper, "on_device", lambda array, *_: array)
    return Proofs


def one_wrong(product: np.ndarray) -> np.ndarray:
    product[0, -1, -1] += 1
    return product


def one_missing(product: np.ndarray) -> np.ndarray:
    product[0, -1, -1] = np.nan
    return product


def test_a_card_that_multiplies_rightly(session: Any, caplog: pytest.LogCaptureFixture) -> None:
    rounded = session(lambda product: product * np.float32(1 + 1e-6))
    assert uses_hopper(HOPPER, DType.bfloat16, rounded)
    assert not caplog.records


@pytest.mark.parametrize("wrong", [one_wrong, one_missing])
def test_a_card_that_multiplies_wrongly(
    session: Any, wrong: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert not uses_hopper(HOPPER, DType.bfloat16, session(wrong))
    assert "multiplies wrongly" in caplog.text


@pytest.mark.parametrize(
    "early",
    [
        lambda known: np.nextafter(known, np.float32(np.inf)),
        lambda known: np.where(known == known.max(), np.nan, known),
    ],
)
def test_a_card_that_begins_too_early(
    session: Any, early: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert not uses_hopper(HOPPER, DType.bfloat16, session(lambda product: product, early))
    assert "begins kernels too early" in caplog.text


def test_other_cards_and_types(session: Any) -> None:
    right = session(lambda product: product)
    assert is_hopper(HOPPER, DType.bfloat16)
    assert not uses_hopper(HOPPER, DType.float32, right)
    for other in OTHERS:
        assert not uses_hopper(other, DType.bfloat16, right)


@pytest.mark.slow
def test_the_graphs_that_ask() -> None:
    """On a CPU both sides are by the same kernels."""
    device, dtype = CPU(), DType.float32
    session = Session([device])
    graphs = session.init_all(compiled(**proof_artifact(device, dtype, session)))
    assert products_agree(graphs["products"], device, dtype)
    assert chains_agree(graphs["chains"], device, dtype)
