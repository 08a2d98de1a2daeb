"""Products of warpgroups, which read both factors from shared memory. Source: PTX ISA 8.5."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from compat_tests.support.ptx.arithmetic import from_bfloat16

WARPGROUP = 128
"""Threads."""
ROWS, DEPTH = 64, 16
SWIZZLE_128 = 1


def multiplied(
    shared: np.ndarray, operation: Sequence[str], left: int, right: int, sums: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The sums ``[threads, registers]`` of a warpgroup after a product, and the bytes it read.

    Args:
        shared: Memory, as tensor cores see it.
        operation: The parts of the instruction's name.
        left: Descriptor of the left factor ``[64, 16]``.
        right: Descriptor of the right one, transposed ``[columns, 16]``.
        sums: What is added to.
    """
    assert tuple(operation[5:]) == ("f32", "bf16", "bf16"), operation
    found = re.fullmatch(rf"m{ROWS}n(\d+)k{DEPTH}", operation[4])
    assert found, operation
    columns = int(found[1])
    places = [_places(left, ROWS), _places(right, columns)]
    a, b = (from_bfloat16(shared[each].view(np.uint16)[..., 0]) for each in places)
    product = a.astype(np.float64) @ b.astype(np.float64).T
    thread, register = np.arange(WARPGROUP)[:, None], np.arange(sums.shape[1])
    row = thread // 32 * 16 + thread % 32 // 4 + register % 4 // 2 * 8
    column = register // 4 * 8 + thread % 4 * 2 + register % 2
    read = np.concatenate([each.reshape(-1) for each in places])
    return (sums + product[row, column]).astype(np.float32), read


def _places(descriptor: int, lines: int) -> np.ndarray:
    """Where the bytes ``[lines, depth, 2]`` of a factor lie, whose lines are swizzled."""
    start, groups = (descriptor & 0x3FFF) << 4, (descriptor >> 32 & 0x3FFF) << 4
    assert descriptor >> 62 == SWIZZLE_128
    assert not descriptor >> 49 & 7, "a base offset"
    line, k, byte = np.ogrid[:lines, :DEPTH, :2]
    address = start + line // 8 * groups + line % 8 * 128 + 2 * k + byte
    return address ^ (address >> 7 & 7) << 4
