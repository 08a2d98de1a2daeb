"""Memory that requests borrow."""

from __future__ import annotations

import numpy as np
import pytest
from max.driver import CPU, Buffer
from max.dtype import DType

from whisper_max_backend.engine.state.buffer_pool import BufferPool


class Borrower:
    """A request."""


@pytest.fixture
def pool() -> BufferPool:
    return BufferPool(CPU())


def address(buffer: Buffer) -> int:
    return int(buffer.to_numpy().ctypes.data)


def borrow_and_leave(pool: BufferPool, rows: int) -> int:
    """Where a request of so many rows has been served."""
    return address(pool.lend(Borrower(), DType.float32, (rows, 1000)))


def test_types_and_shapes(pool: BufferPool) -> None:
    borrower = Borrower()
    first = pool.lend(borrower, DType.float32, (2, 3))
    first.to_numpy()[:] = 1.5
    second = pool.lend(borrower, DType.uint8, (2, 3, 4))
    second.to_numpy()[:] = 7
    assert (first.dtype, tuple(first.shape)) == (DType.float32, (2, 3))
    assert (second.dtype, tuple(second.shape)) == (DType.uint8, (2, 3, 4))
    assert np.all(first.to_numpy() == 1.5)


def test_a_smaller_request_gets_what_a_larger_one_left(pool: BufferPool) -> None:
    """And the next large one gets it back: pages that were touched stay in use."""
    large = borrow_and_leave(pool, 40)
    assert borrow_and_leave(pool, 15) == large
    assert borrow_and_leave(pool, 40) == large


def test_the_smallest_that_is_large_enough(pool: BufferPool) -> None:
    borrowers = [Borrower() for _ in range(3)]
    places = [
        address(pool.lend(borrower, DType.float32, (rows, 1000)))
        for borrower, rows in zip(borrowers, (40, 5, 15), strict=True)
    ]
    del borrowers[:]
    assert borrow_and_leave(pool, 10) == places[2]
    assert borrow_and_leave(pool, 3) == places[1]
    assert borrow_and_leave(pool, 20) == places[0]


def test_what_is_too_small_is_let_go_of(pool: BufferPool) -> None:
    borrow_and_leave(pool, 5)
    borrow_and_leave(pool, 40)
    assert [piece.shape[0] for piece in pool._free] == [40 * 4000]


def test_what_is_too_large_for_long_is_let_go_of(pool: BufferPool) -> None:
    borrow_and_leave(pool, 40)
    for _ in range(15):
        borrow_and_leave(pool, 5)
    assert [piece.shape[0] for piece in pool._free] == [40 * 4000]
    borrow_and_leave(pool, 5)
    assert pool._free == []
    borrow_and_leave(pool, 5)
    assert [piece.shape[0] for piece in pool._free] == [5 * 4000]
