"""A kernel as PTX, and the memory that it works on. Source: PTX ISA 8.5."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

TYPES: dict[str, type[np.generic]] = {
    **{f"u{n}": getattr(np, f"uint{n}") for n in (8, 16, 32, 64)},
    **{f"s{n}": getattr(np, f"int{n}") for n in (8, 16, 32, 64)},
    **{f"b{n}": getattr(np, f"uint{n}") for n in (8, 16, 32, 64)},
    "f32": np.float32,
}
"""Of instructions, as NumPy has them."""

_COMMENT = re.compile(r"//[^\n]*")
_STATEMENT = re.compile(r"\$?\w+:|[^;{}:]*(?:\{[^}]*\}[^;{}]*)*;")
_OPERAND = re.compile(r"\{[^}]*\}|\[[^\]]*\]|[^,\s]+")
_PARAMETER = re.compile(r"\.param\s+\.align\s+\d+\s+\.b8\s+(\w+)\[(\d+)\]")
_SHARED = re.compile(r"\.shared\s+\.align\s+(\d+)\s+\.b8\s+([\w$]+)\[(\d*)\]")
_SCOPE = re.compile(r"\{\s*\.reg\s+\.pred\s+p;")
"""What begins a block of assembly that has a predicate of its own."""

_Array = TypeVar("_Array", bound=np.ndarray)


@dataclass(frozen=True)
class Instruction:
    """An instruction: its name's parts, its operands, and the predicate that guards it."""

    operation: tuple[str, ...]
    operands: tuple[str, ...]
    guard: str
    negated: bool


class Program:
    """The kernel of a PTX file, which takes one struct.

    Args:
        text: The file.
        dynamic: Bytes of shared memory that the launch adds.

    Attributes:
        code: Instructions in their order.
        labels: Where each label stands among them.
        parameter_bytes: Of the struct.
        shared: Where each array lies in the shared memory, of `shared_bytes`.
    """

    def __init__(self, text: str, dynamic: int = 0) -> None:
        text = _SCOPE.sub("", _COMMENT.sub("", text).replace("::entry", "").replace("::cta", ""))
        head, _, body = text[text.index(".entry") :].partition("{")
        ((_, size),) = _PARAMETER.findall(head)
        self.parameter_bytes = int(size)
        self.shared: dict[str, int] = {}
        self.shared_bytes = 0
        for align, name, count in _SHARED.findall(text):
            start = -(-self.shared_bytes // int(align)) * int(align)
            self.shared[name] = start
            self.shared_bytes = start + int(count or dynamic)
        self.labels: dict[str, int] = {}
        self.code: list[Instruction] = []
        for statement in _STATEMENT.findall(body):
            self._add(" ".join(statement.rstrip(";").split()))

    def _add(self, line: str) -> None:
        if line.endswith(":"):
            self.labels[line[:-1]] = len(self.code)
        elif line and not line.startswith("."):
            guard = ""
            if line.startswith("@"):
                guard, _, line = line[1:].partition(" ")
            name, _, rest = line.partition(" ")
            operands = tuple(_OPERAND.findall(rest))
            negated = guard.startswith("!")
            kinds = tuple(name.split("."))
            self.code.append(Instruction(kinds, operands, guard.lstrip("!"), negated))


class Memory:
    """The card's memory: arrays one after another, with bytes between them that are nobody's."""

    BASE = 1 << 16
    """Its first address."""
    ALIGNMENT = 256

    def __init__(self) -> None:
        self.bytes = np.zeros(0, np.uint8)

    def put(self, array: np.ndarray) -> int:
        """Copies an array; returns its address."""
        data = np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)
        start = -(-(len(self.bytes) + 1) // self.ALIGNMENT) * self.ALIGNMENT
        gap = np.full(start - len(self.bytes), 0xFF, np.uint8)  # NaN in every float type
        self.bytes = np.concatenate([self.bytes, gap, data])
        return self.BASE + start

    def get(self, address: int, like: _Array) -> _Array:
        """An array of a shape and type from an address."""
        start = address - self.BASE
        found = self.bytes[start : start + like.nbytes].view(like.dtype)
        return found.reshape(like.shape).copy()
