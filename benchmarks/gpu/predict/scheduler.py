"""One scheduler of a multiprocessor with its warps, cycle by cycle.

A warp issues its instructions in order, as the compiler's notes allow (`sass`); a scheduler issues
one instruction a cycle, and a unit is busy with each for some cycles. The four schedulers of a
multiprocessor are taken to do the same at the same time: what they share is busy four times as
long. A branch back is taken as often as the caller says, another conditional branch never; so a
warp does all that a block's busiest warp does.
"""

from __future__ import annotations

import heapq
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.gpu.predict import cards
from benchmarks.gpu.predict.sass import SCOREBOARDS, Instruction, Program

SECTOR = 32
"""Bytes that the L1 cache takes at once."""
_FLOATS = {"FFMA", "FADD", "FMUL"}
_SPECIAL = {"MUFU", "F2I", "I2F", "F2F", "FRND"}
_GLOBAL_LOADS = {"LDG", "LD"}
_GLOBAL = {*_GLOBAL_LOADS, "STG", "ST", "LDGSTS"}
_SHARED = {"LDS", "STS", "LDSM", "STSM"}
_WAIT = "ACQBULK"
"""For the kernel before this one."""


@dataclass(frozen=True)
class Loop:
    """A loop of a kernel: how often it goes round, and where what it loads is found."""

    trips: int
    source: str | None = None


@dataclass(eq=False)
class _Warp:
    block: int
    place: int = 0
    time: float = 0
    boards: list[float] = field(default_factory=lambda: [0.0] * SCOREBOARDS)
    rounds: dict[int, int] = field(default_factory=dict)
    versions: dict[int, int] = field(default_factory=dict)
    sectors: dict[tuple[int, int], int] = field(default_factory=dict)
    copies: list[float] = field(default_factory=list)
    products: list[float] = field(default_factory=list)
    copying: float = 0


@dataclass(frozen=True)
class Scheduled:
    """What a scheduler did.

    Attributes:
        cycles: Until its last warp ended.
        issued: Instructions, by kind.
        busy: Cycles that each unit was busy, by its name.
        waited: When the last warp had waited for the kernel before, and had what it loaded till
            then; 0 where none waits.
    """

    cycles: float
    issued: dict[str, int]
    busy: dict[str, float]
    waited: float = 0


def schedule(
    program: Program, loops: Sequence[Loop], source: str, blocks: int, warps: int
) -> Scheduled:
    """Runs resident blocks to their end.

    Args:
        program: The kernel.
        loops: Of the program, in the order of their ends; what is missing goes round once.
        source: Where loads outside of loops find their data: a key of `cards.LATENCIES`.
        blocks: Resident on the multiprocessor.
        warps: Of a block on this scheduler.
    """
    return _Scheduler(program, loops, source, blocks, warps).run()


class _Scheduler:
    def __init__(
        self, program: Program, loops: Sequence[Loop], source: str, blocks: int, warps: int
    ) -> None:
        self.program = program.instructions
        missing = len(program.ends) - len(loops)
        self.loops = [*loops, *[Loop(1)] * missing]
        self.ends = {place: number for number, place in enumerate(program.ends)}
        inside = program.innermost()
        self.sources = [
            source if number is None else self.loops[number].source or source for number in inside
        ]
        self.warps = warps
        self.waiting: dict[int, list[_Warp]] = {block: [] for block in range(blocks)}
        self.free: dict[str, float] = {}
        self.busy: dict[str, float] = {}
        self.issued: dict[str, int] = {}
        self.waited = 0.0
        self.order = 0
        self.queue: list[tuple[float, int, _Warp]] = []
        for block in range(blocks):
            for _ in range(warps):
                self._push(_Warp(block))

    def run(self) -> Scheduled:
        last = 0.0
        while self.queue:
            _, _, warp = heapq.heappop(self.queue)
            instruction = self.program[warp.place]
            unit, cycles = _unit(instruction)
            ready = max(
                warp.time,
                self.free.get("issue", 0),
                self.free.get(unit, 0),
                *(warp.boards[number] for number in instruction.waits),
                self._arrived(warp, instruction),
            )
            if ready > warp.time:  # others may go first
                warp.time = ready
                self._push(warp)
                continue
            self._occupy("issue", ready, 1)
            if instruction.kind == "HGMMA":
                self._multiply(warp, instruction, ready)
            else:
                self._occupy(unit, ready, cycles)
            self.issued[instruction.kind] = self.issued.get(instruction.kind, 0) + 1
            if instruction.kind == _WAIT:
                self.waited = max(self.waited, ready)
            if not self._issue(warp, instruction, ready):
                last = max(last, ready)
        return Scheduled(last, self.issued, self.busy, self.waited)

    def _issue(self, warp: _Warp, instruction: Instruction, now: float) -> bool:
        """The effects of an instruction on its warp; False where that has ended."""
        latency = self._latency(warp, instruction)
        if instruction.result is not None:
            board = warp.boards[instruction.result]
            warp.boards[instruction.result] = max(board, now + latency)
        if instruction.operands is not None:
            board = warp.boards[instruction.operands]
            warp.boards[instruction.operands] = max(board, now + cards.OTHER_LATENCY)
        for register in instruction.written:
            warp.versions[register] = warp.versions.get(register, 0) + 1
        if instruction.kind == "LDGSTS":
            warp.copying = max(warp.copying, now + latency)
        elif instruction.kind == "LDGDEPBAR":
            warp.copies.append(warp.copying)
        warp.time = now + max(1, instruction.stall)
        ended = instruction.kind == "EXIT" and not instruction.predicated
        if ended or instruction.target == warp.place:
            return False
        warp.place = self._next(warp, instruction)
        if instruction.kind == "BAR":
            self._meet(warp)
        else:
            self._push(warp)
        return True

    def _next(self, warp: _Warp, instruction: Instruction) -> int:
        number = self.ends.get(warp.place)
        again = instruction.jumps
        if number is not None:
            done = warp.rounds.get(number, 0) + 1
            again = done < self.loops[number].trips
            warp.rounds[number] = done if again else 0
        if not again:
            return warp.place + 1
        assert instruction.target is not None
        return instruction.target

    def _meet(self, warp: _Warp) -> None:
        """At a barrier of the block."""
        here = self.waiting[warp.block]
        here.append(warp)
        if len(here) == self.warps:
            time = max(each.time for each in here) + cards.BARRIER_CYCLES
            for each in here:
                each.time = time
                self._push(each)
            here.clear()

    def _multiply(self, warp: _Warp, instruction: Instruction, now: float) -> None:
        """A product of a warpgroup waits for the tensor unit; its warps do not."""
        cycles = _product_cycles(instruction)
        start = max(now, self.free.get("tensor", 0))
        self._occupy("tensor", start, cycles)
        if "gsb0" in instruction.text:
            warp.products.append(start + cycles)

    def _arrived(self, warp: _Warp, instruction: Instruction) -> float:
        """When the groups of copies or products are done that an instruction waits for."""
        if instruction.kind == _WAIT:  # which takes longer than any load
            return max(warp.boards)
        if instruction.name.startswith("WARPGROUP.DEPBAR"):
            groups = warp.products
        elif instruction.kind == "DEPBAR":
            groups = warp.copies
        else:
            return 0
        found = re.search(r",\s*(0x[0-9a-f]+)", instruction.text)
        later = int(found[1], 16) if found else 0
        return max(groups[: len(groups) - later], default=0)

    def _latency(self, warp: _Warp, instruction: Instruction) -> float:
        kind = instruction.kind
        if kind in _GLOBAL_LOADS or kind == "LDGSTS":
            return cards.LATENCIES["l1" if self._in_l1(warp, instruction) else self._source(warp)]
        return cards.LATENCIES["shared"] if kind in _SHARED else cards.OTHER_LATENCY

    def _source(self, warp: _Warp) -> str:
        return self.sources[warp.place]

    def _in_l1(self, warp: _Warp, instruction: Instruction) -> bool:
        """Whether the warp has loaded this sector before, by the same register."""
        address = instruction.address
        if instruction.kind == "LDGSTS" or address is None:
            return False
        register, offset = address
        version = warp.versions.get(register, 0)
        sector = (register, offset // SECTOR)
        known = warp.sectors.get(sector) == version
        warp.sectors[sector] = version
        return known

    def _occupy(self, unit: str, now: float, cycles: float) -> None:
        self.free[unit] = now + cycles
        self.busy[unit] = self.busy.get(unit, 0) + cycles

    def _push(self, warp: _Warp) -> None:
        self.order += 1
        heapq.heappush(self.queue, (warp.time, self.order, warp))


def _unit(instruction: Instruction) -> tuple[str, float]:
    """The unit that executes an instruction of a warp, and for how many cycles."""
    kind = instruction.kind
    if instruction.never:
        return "uniform", 1
    if kind == "HMMA":
        return "tensor", cards.MMA_16816_CYCLES
    if kind == "HGMMA":
        return "", 0  # see _multiply
    if kind in _FLOATS:
        return "float", 1
    if kind in _SPECIAL:
        return "special", cards.SPECIAL
    moved = instruction.bytes * cards.WARP * cards.SCHEDULERS
    if kind in _SHARED:
        return "shared", moved / cards.SHARED_BYTES_PER_CYCLE
    if kind in _GLOBAL:
        return "l1", moved / cards.L1_BYTES_PER_CYCLE
    if kind.startswith("U") or kind in {"BAR", "BRA", "EXIT", "DEPBAR", "LDGDEPBAR", "BSSY"}:
        return "uniform", 1
    return ("multiply" if kind.startswith("IMAD") else "integer"), cards.HALF_RATE


def _product_cycles(instruction: Instruction) -> float:
    """That a scheduler's tensor unit takes for its quarter of a warpgroup's product."""
    found = re.match(r"HGMMA\.(\d+)x(\d+)x(\d+)", instruction.text)
    assert found is not None, instruction.text
    return math.prod(map(int, found.groups())) / cards.SCHEDULERS / cards.MULTIPLICATIONS
