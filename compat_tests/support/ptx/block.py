"""A block of threads, executed in NumPy: all threads that are at the same place, together.

Threads that are at different places are taken one place after another, the earliest first, as far
as a barrier; what a warp does together waits for all of it. Shared memory holds NaN at first, and
what is copied to it asynchronously is there when it has been waited for, so that a missing wait
shows. Races between threads do not.

A kernel that begins while the one before it still works writes nothing until it has waited for that
one, and reads only weights.

Products of warpgroups see shared memory as it was at the last proxy fence. What they read must not
be copied over, nor their sums be used, before they have been waited for.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from compat_tests.support.ptx.arithmetic import ARITHMETIC, from_bfloat16, operand_kinds
from compat_tests.support.ptx.program import TYPES, Memory, Program
from compat_tests.support.ptx.warpgroup import WARPGROUP, multiplied

WARP = 32
_OF_WARPS = {"mma", "shfl"}
"""Instructions that a warp's threads execute together."""


class Block:
    """One block of a launch.

    Args:
        program: Of a kernel.
        memory: The card's.
        parameters: The kernel's struct.
        index: Of the block in the grid.
        threads: Of the block.
        weights: Addresses that may be read before the kernel has waited for the one before it.
    """

    def __init__(
        self,
        program: Program,
        memory: Memory,
        parameters: bytes,
        index: tuple[int, int],
        threads: int,
        weights: range = range(0),
    ) -> None:
        assert len(parameters) == program.parameter_bytes
        self._program, self._memory, self._count = program, memory, threads
        self._parameters = np.frombuffer(parameters, np.uint8)
        self._shared = np.full(program.shared_bytes, 0xFF, np.uint8)
        self._weights = weights
        begins_early = any(one.operation[0] == "griddepcontrol" for one in program.code)
        self._waited = np.full(threads, not begins_early)
        self._place = np.zeros(threads, np.int64)
        self._waiting = np.zeros(threads, bool)
        self._copies: list[list[tuple[np.ndarray, np.ndarray]]] = [[]]
        self._fenced = self._shared.copy()
        self._multiplied: list[list[np.ndarray]] = [[]]
        self._sums: set[str] = set()
        zero = np.zeros(threads, np.uint32)
        self._registers: dict[str, np.ndarray] = {
            "%tid.x": np.arange(threads, dtype=np.uint32),
            "%ctaid.x": zero + np.uint32(index[0]),
            "%ctaid.y": zero + np.uint32(index[1]),
        }

    def run(self) -> None:
        """Until all threads have returned."""
        end = len(self._program.code)
        with np.errstate(all="ignore"):
            while True:
                running = (self._place < end) & ~self._waiting
                if running.any():
                    self._step(*self._next(running))
                elif self._waiting.any():
                    self._waiting[:] = False
                else:
                    return

    def _next(self, running: np.ndarray) -> tuple[int, np.ndarray]:
        """The place to go on with, and the threads that are there."""
        for place in np.unique(self._place[running]):
            active = running & (self._place == place)
            if self._program.code[place].operation[0] not in _OF_WARPS or _whole_warps(active):
                return int(place), active
        raise AssertionError("a part of a warp")

    def _step(self, place: int, active: np.ndarray) -> None:
        one = self._program.code[place]
        self._place[active] = place + 1
        if one.guard:
            active = active & (self._registers[one.guard] ^ one.negated)
            if not active.any():
                return
        kind, operands = one.operation[0], one.operands
        if kind == "bra":
            self._place[active] = self._program.labels[operands[0]]
        elif kind == "ret":
            self._place[active] = len(self._program.code)
        elif kind == "bar":
            self._waiting[active] = True
        elif kind in ARITHMETIC:
            kinds = operand_kinds(one.operation, len(operands) - 1)
            values = [self._value(x, k) for x, k in zip(operands[1:], kinds, strict=True)]
            self._set(operands[0], ARITHMETIC[kind](one.operation, *values), active)
        else:
            getattr(self, f"_{kind}")(one.operation, operands, active)

    def _value(self, text: str, kind: str) -> np.ndarray:
        """An operand of every thread in a type, or as it is kept, for a predicate."""
        assert text not in self._sums, "a product that nobody waited for"
        if text in self._registers:
            found = self._registers[text]
        elif text in self._program.shared:
            found = np.full(self._count, self._program.shared[text], np.uint64)
        elif text.startswith("0f"):
            found = np.full(self._count, int(text[2:], 16), np.uint32)
        else:
            found = np.full(self._count, int(text, 0) & (1 << 64) - 1, np.uint64)
        if not kind:
            return found
        bits = 8 * np.dtype(TYPES[kind]).itemsize
        own = found.view(TYPES[f"u{8 * found.dtype.itemsize}"])
        return own.astype(TYPES[f"u{bits}"]).view(TYPES[kind])

    def _set(self, name: str, value: np.ndarray, active: np.ndarray) -> None:
        if value.dtype != bool:
            value = np.ascontiguousarray(value).view(TYPES[f"u{8 * value.dtype.itemsize}"])
        old = self._registers.get(name, np.zeros(self._count, value.dtype))
        self._registers[name] = np.where(active, value, old)

    def _mov(self, o: Sequence[str], x: Sequence[str], active: np.ndarray) -> None:
        if x[0].startswith("{"):
            names = _names(x[0])
            bits = int(o[-1][1:]) // len(names)
            value = self._value(x[1], o[-1])
            for number, name in enumerate(names):
                part = value >> np.array(bits * number, value.dtype)
                self._set(name, part.astype(TYPES[f"u{bits}"]), active)
        elif x[1].startswith("{"):
            names = _names(x[1])
            parts = [self._value(name, f"u{int(o[-1][1:]) // len(names)}") for name in names]
            self._set(x[0], np.stack(parts, 1).view(TYPES[o[-1]])[:, 0], active)
        elif o[-1] == "pred":
            self._set(x[0], self._value(x[1], "").astype(bool), active)
        else:
            self._set(x[0], self._value(x[1], o[-1]), active)

    def _cvta(self, o: Sequence[str], x: Sequence[str], active: np.ndarray) -> None:
        """Between generic addresses and those of the card's memory, which are the same."""
        assert "shared" not in o, "a generic address of shared memory"
        self._set(x[0], self._value(x[1], "u64"), active)

    def _shfl(self, o: Sequence[str], x: Sequence[str], active: np.ndarray) -> None:
        assert o[2] == "bfly", o
        partner = np.arange(self._count) ^ self._value(x[2], "u32").astype(np.int64)
        self._set(x[0].partition("|")[0], self._value(x[1], "u32")[partner], active)

    def _mma(self, o: Sequence[str], x: Sequence[str], active: np.ndarray) -> None:
        assert o[3] == "m16n8k16", o
        assert o[-4:] == ("f32", "bf16", "bf16", "f32"), o
        warps = self._count // WARP
        group, member = np.arange(WARP) // 4, np.arange(WARP) % 4
        left, right, added = (np.zeros((warps, *shape)) for shape in ((16, 16), (16, 8), (16, 8)))
        for half in range(2):
            for k, name in enumerate(_names(x[1])):
                column = 2 * member + k // 2 * 8 + half
                left[:, group + k % 2 * 8, column] = self._halves(name, half)
            for k, name in enumerate(_names(x[2])):
                right[:, 2 * member + k * 8 + half, group] = self._halves(name, half)
        places = [(group + k // 2 * 8, 2 * member + k % 2) for k in range(4)]
        for (row, column), name in zip(places, _names(x[3]), strict=True):
            added[:, row, column] = self._value(name, "f32").reshape(warps, WARP)
        result = (added + left @ right).astype(np.float32)
        for (row, column), name in zip(places, _names(x[0]), strict=True):
            self._set(name, result[:, row, column].reshape(-1), active)

    def _griddepcontrol(self, o: Sequence[str], x: Sequence[str], active: np.ndarray) -> None:
        if o[1] == "wait":
            self._waited |= active
        else:
            assert self._waited[active].all(), "the next kernel comes too soon"

    def _fence(self, o: Sequence[str], x: Sequence[str], active: np.ndarray) -> None:
        assert o[1:] == ("proxy", "async", "shared"), o
        assert active.all(), "a part of the threads"
        self._fenced = self._shared.copy()

    def _wgmma(self, o: Sequence[str], x: Sequence[str], active: np.ndarray) -> None:
        assert active.all(), "a part of the warpgroups"
        if o[1] == "commit_group":
            self._multiplied.append([])
        elif o[1] == "wait_group":
            pending = int(x[0]) + 1  # the last is not committed
            self._multiplied = self._multiplied[-pending:]
            if self._multiplied == [[]]:
                self._sums.clear()
        elif o[1] == "mma_async":
            assert x[3:] == ("p", "1", "1", "0", "0"), x
            names = _names(x[0])
            self._sums.difference_update(names)  # products on the same sums keep their order
            sums = np.stack([self._value(name, "f32") for name in names], 1)
            descriptors = [self._value(name, "u64").reshape(-1, WARPGROUP) for name in x[1:3]]
            for number in range(self._count // WARPGROUP):
                own = slice(number * WARPGROUP, (number + 1) * WARPGROUP)
                left, right = (each[number] for each in descriptors)
                assert (left == left[0]).all(), "a warpgroup has one descriptor"
                assert (right == right[0]).all(), "a warpgroup has one descriptor"
                given = int(left[0]), int(right[0])
                sums[own], read = multiplied(self._fenced, o, *given, sums[own])
                self._multiplied[-1].append(read)
            for number, name in enumerate(names):
                self._set(name, sums[:, number], active)
            self._sums.update(names)
        else:
            assert o[1] == "fence", o

    def _halves(self, name: str, half: int) -> np.ndarray:
        """One of the two bfloat16 in a register, by warp and lane."""
        bits = self._value(name, "u32") >> np.uint32(16 * half)
        return from_bfloat16(bits.astype(np.uint16)).reshape(-1, WARP)

    def _ld(self, o: Sequence[str], x: Sequence[str], active: np.ndarray) -> None:
        dtype, names = np.dtype(TYPES[o[-1]]), _names(x[0])
        data, places = self._cells(o, x[1], dtype.itemsize, len(names), active)
        for number, name in enumerate(names):
            found = np.zeros(self._count, dtype)
            found[active] = data[places[:, number]].view(dtype)[:, 0]
            self._set(name, found, active)

    def _st(self, o: Sequence[str], x: Sequence[str], active: np.ndarray) -> None:
        dtype, names = np.dtype(TYPES[o[-1]]), _names(x[1])
        data, places = self._cells(o, x[0], dtype.itemsize, len(names), active)
        assert data is self._shared or self._waited[active].all(), "written too soon"
        for number, name in enumerate(names):
            value = np.ascontiguousarray(self._value(name, o[-1])[active])
            data[places[:, number]] = value.view(np.uint8).reshape(-1, dtype.itemsize)

    def _cells(
        self, o: Sequence[str], address: str, size: int, count: int, active: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """A memory's bytes, and the places ``[threads, count, size]`` of what is accessed."""
        if "param" in o:
            offset = int(address.strip("[]").partition("+")[2] or 0)
            data, first = self._parameters, np.full(active.sum(), offset, np.int64)
        else:
            first = self._address(address)[active]
            data = self._shared
            if "shared" not in o:
                self._assert_not_too_soon(first, active)
                data, first = self._memory.bytes, first - Memory.BASE
        assert (first % (size * count) == 0).all(), "an address that is not aligned"
        assert ((first >= 0) & (first + size * count <= len(data))).all(), "outside of the memory"
        return data, first[:, None, None] + np.arange(size * count).reshape(count, size)

    def _assert_not_too_soon(self, addresses: np.ndarray, active: np.ndarray) -> None:
        weights = (self._weights.start <= addresses) & (addresses < self._weights.stop)
        assert (weights | self._waited[active]).all(), "read too soon"

    def _address(self, text: str) -> np.ndarray:
        name, offset = re.fullmatch(r"\[([%\w$.]+)\+?(-?\d+)?\]", text).groups()  # type: ignore[union-attr]
        return self._value(name, "s64") + int(offset or 0)

    def _cp(self, o: Sequence[str], x: Sequence[str], active: np.ndarray) -> None:
        if "commit_group" in o:
            self._copies.append([])
        elif "wait_all" in o:
            self._arrive(len(self._copies), active)
        elif "wait_group" in o:
            self._arrive(len(self._copies) - 1 - int(x[0]), active)  # the last is not committed
        else:
            size = int(x[2])
            target = self._value(x[0].strip("[]"), "u32").astype(np.int64)[active]
            source = self._address(x[1])[active]
            self._assert_not_too_soon(source, active)
            source = source - Memory.BASE
            inside = np.arange(size) < self._value(x[3], "u32")[active, None]
            cells = target[:, None] + np.arange(size)
            read = [places for group in self._multiplied for places in group]
            assert not any(np.isin(cells, places).any() for places in read), "read by a product"
            places = np.where(inside, source[:, None] + np.arange(size), 0)
            values = np.where(inside, self._memory.bytes[places], 0).astype(np.uint8)
            self._copies[-1].append((cells, values))

    def _arrive(self, groups: int, active: np.ndarray) -> None:
        """What was asked for in the oldest groups is there now."""
        assert active.all(), "a part of the threads waits"
        for group in self._copies[:groups]:
            for places, values in group:
                self._shared[places] = values
            group.clear()


def _whole_warps(active: np.ndarray) -> bool:
    of_warps = active.reshape(-1, WARP)
    return bool((of_warps.all(axis=1) == of_warps.any(axis=1)).all())


def _names(text: str) -> list[str]:
    """The registers of a vector, or the one register."""
    return [part.strip() for part in text.strip("{}").split(",")]
