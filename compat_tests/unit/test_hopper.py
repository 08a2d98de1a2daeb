"""Hopper's own products are used on such a card alone, and only where it multiplies rightly."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
from max.driver import CPU
from max.dtype import DType

from whisper_max_backend.engine.compile.session import Session
from whisper_max_backend.engine.gpu import hopper
from whisper_max_backend.engine.gpu.hopper import is_hopper, products_agree, uses_hopper


class Card:
    """A GPU that is not there."""

    def __init__(self, api: str, architecture_name: str) -> None:
        self.api, self.architecture_name = api, architecture_name


HOPPER: Any = Card("cuda", "sm_90a")
OTHERS: tuple[Any, ...] = (
    CPU(),
    Card("cuda", "sm_89"),
    Card("cuda", "sm_100a"),
    Card("hip", "gfx942"),
)


class Products:
    """A session whose card multiplies as a test says."""

    def __init__(self, own: Any) -> None:
        self.own = own

    def init_all(self, artifact: object) -> dict[str, Any]:
        return {"products": self}

    def execute(self, x: np.ndarray, weight: np.ndarray) -> list[Any]:
        known = (x @ weight.T).view(Result)
        return [known, self.own(known.copy())]


class Result(np.ndarray):
    """As MAX's buffers have it."""

    def to_numpy(self) -> np.ndarray:
        return np.asarray(self)


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes sessions that compile nothing."""
    monkeypatch.setattr(hopper, "compiled", lambda **_: None)
    monkeypatch.setattr(hopper, "on_device", lambda array, *_: array)
    return Products


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


def test_other_cards_and_types(session: Any) -> None:
    right = session(lambda product: product)
    assert is_hopper(HOPPER, DType.bfloat16)
    assert not uses_hopper(HOPPER, DType.float32, right)
    for other in OTHERS:
        assert not uses_hopper(other, DType.bfloat16, right)


@pytest.mark.slow
def test_the_graph_that_asks() -> None:
    """On a CPU both products are by the same kernel."""
    device = CPU()
    assert products_agree(device, DType.float32, Session([device]))
