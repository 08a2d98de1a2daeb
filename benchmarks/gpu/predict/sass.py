"""Reads machine code as `nvdisasm` prints it: instructions, what they wait for, and loops.

An instruction of Volta and later is 128 bits. Above bit 104 the compiler says how long the warp
waits before its next instruction, on which of six scoreboards the result or the operands are
reported, and for which scoreboards the instruction waits (Jia et al., arXiv 1804.06826).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

SCOREBOARDS = 6

_LABEL = re.compile(r"^(\.L\w+):")
_INSTRUCTION = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(.*?)\s*;?\s*/\* 0x[0-9a-f]{16} \*/")
_CONTROL = re.compile(r"^\s+/\* (0x[0-9a-f]{16}) \*/")
_PREDICATE = re.compile(r"^@!?U?P\w+\s+")
_TARGET = re.compile(r"`\((\.L\w+)\)")
_CONDITION = re.compile(r"^BRA\S*\s+!?U?P\w+\s*,|^BRA\.(DIV|CONV)")
_REGISTER = re.compile(r"\bR(\d+)")
_ADDRESS = re.compile(r"\[R(\d+)(?:\.64)?(?:\+(-?0x[0-9a-f]+))?\]")


@dataclass(frozen=True)
class Instruction:
    """An instruction, and what the compiler says of its time.

    Attributes:
        text: Without the predicate.
        predicated: Whether it has one.
        never: Whether that is false whatever the data.
        stall: Cycles until the warp's next instruction, at least.
        result: The scoreboard that reports its result; None where its latency is fixed.
        operands: The scoreboard that reports that its operands are read.
        waits: The scoreboards that it waits for.
        target: Index of the instruction that it branches to.
    """

    text: str
    predicated: bool
    never: bool
    stall: int
    result: int | None
    operands: int | None
    waits: tuple[int, ...]
    target: int | None = None

    @property
    def name(self) -> str:
        """With its modifiers, e.g. ``LDS.128``."""
        return self.text.split()[0]

    @property
    def kind(self) -> str:
        """Without them."""
        return self.name.split(".")[0]

    @property
    def bytes(self) -> int:
        """That a thread moves."""
        found = re.search(r"\.(128|64|U16|S16|U8|S8)\b", self.name)
        return {"128": 16, "64": 8, "U16": 2, "S16": 2, "U8": 1, "S8": 1}[found[1]] if found else 4

    @property
    def jumps(self) -> bool:
        """Whether it goes to its target whatever the data."""
        return self.target is not None and not self.predicated and not _CONDITION.match(self.text)

    @property
    def address(self) -> tuple[int, int] | None:
        """Register and offset of what a load reads."""
        found = _ADDRESS.search(self.text)
        return (int(found[1]), int(found[2] or "0", 16)) if found else None

    @property
    def written(self) -> range:
        """Registers that its result is in."""
        first = self.text.partition(" ")[2].split(",")[0]
        found = _REGISTER.match(first.strip())
        if not found:
            return range(0)
        wide = 2 if ".WIDE" in self.name else max(1, self.bytes // 4)
        return range(int(found[1]), int(found[1]) + wide)


@dataclass
class Program:
    """A kernel's instructions in their order, and the branches back that end its loops."""

    instructions: list[Instruction]
    ends: list[int] = field(default_factory=list)

    def loop(self, number: int) -> dict[str, int]:
        """How many instructions of each kind a loop has."""
        found: dict[str, int] = {}
        for instruction in self.instructions[self._begin(number) : self.ends[number] + 1]:
            found[instruction.kind] = found.get(instruction.kind, 0) + 1
        return found

    def innermost(self) -> list[int | None]:
        """For each instruction, the loop that it is in."""
        loops: list[int | None] = [None] * len(self.instructions)
        # A loop that is inside another begins later, and so comes later here.
        for number in sorted(range(len(self.ends)), key=self._begin):
            for place in range(self._begin(number), self.ends[number] + 1):
                loops[place] = number
        return loops

    def _begin(self, number: int) -> int:
        target = self.instructions[self.ends[number]].target
        assert target is not None
        return target


def parse(text: str) -> Program:
    """The program in the output of ``nvdisasm -c -hex``, which is of one kernel."""
    labels: dict[str, int] = {}
    found: list[tuple[str, int]] = []
    for label, line, control in _lines(text):
        if label:
            labels[label] = len(found)
        else:
            found.append((line, control))
    instructions = [_instruction(line, control, labels) for line, control in found]
    # The last branch goes to itself, and is never reached.
    ends = [
        place
        for place, one in enumerate(instructions)
        if one.target is not None and one.target < place
    ]
    return Program(instructions, ends)


def _lines(text: str) -> Iterator[tuple[str, str, int]]:
    """Labels, and instructions with the upper half of their bits."""
    line = ""
    for row in text.splitlines():
        if label := _LABEL.match(row):
            yield label[1], "", 0
        elif instruction := _INSTRUCTION.match(row):
            line = instruction[1]
        elif line and (control := _CONTROL.match(row)):
            yield "", line, int(control[1], 16)
            line = ""


def _instruction(line: str, control: int, labels: dict[str, int]) -> Instruction:
    predicate = _PREDICATE.match(line)
    text = line[predicate.end() :] if predicate else line
    bits = control >> 41
    result, operands, waits = bits >> 5 & 7, bits >> 8 & 7, bits >> 11 & 63
    target = _TARGET.search(text) if text.startswith("BRA") else None
    return Instruction(
        text,
        predicate is not None,
        line.startswith("@!PT "),
        bits & 15,
        result if result < SCOREBOARDS else None,
        operands if operands < SCOREBOARDS else None,
        tuple(number for number in range(SCOREBOARDS) if waits >> number & 1),
        labels[target[1]] if target else None,
    )
